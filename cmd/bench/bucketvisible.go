package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/replicate/replicate/storage/storagetest/badnet"
)

// appearing measures how long after its record was published a commit is seen in a mount on another machine.
func (f *far) appearing() error {
	here, there, mnt := f.path("appearing"), f.path("appearing-there"), f.path("mnt-appearing")
	for _, dir := range []string{here, there} {
		if err := f.project(dir, "appearing"); err != nil {
			return err
		}
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	if err := f.uploaded(here); err != nil { // so that there is a repository
		return err
	}
	r, err := f.startRecorder(here)
	if err != nil {
		return err
	}
	if err := r.init(here); err != nil {
		return err
	}
	way := f.ourMount(there)
	if err := way.mount(mnt); err != nil {
		return err
	}
	var times timing
	for i := range max(5, f.rounds) {
		took, failed := f.appears(r, 100+i, mnt) // the other experiment has a step 0
		if err = failed; err != nil {
			break
		}
		times = append(times, took)
	}
	if err = errors.Join(err, way.unmount(mnt), r.end()); err != nil {
		return err
	}
	f.add("a commit in the bucket, until a mount elsewhere shows it", times.String(), "2 s")
	return nil
}

// appears commits, and returns how long it took from the answer to the first record that is sent until all that the commit is can be seen.
func (f *far) appears(r *recorder, step int, mnt string) (time.Duration, error) {
	f.proxy.Exchanges()
	if err := r.commit(step); err != nil {
		return 0, err
	}
	err := appears(func() bool {
		found, _ := filepath.Glob(filepath.Join(mnt, "latest/commits", fmt.Sprintf("%08d-*", step)))
		return len(found) == 1
	})
	seen := time.Now()
	if err != nil {
		return 0, err
	}
	for _, e := range f.proxy.Exchanges() {
		if isRecord(e) {
			return seen.Sub(e.Answered), nil
		}
	}
	return 0, errors.New("it is seen and was not sent")
}

// isRecord reports whether an exchange put a record into a bucket.
func isRecord(e badnet.Exchange) bool {
	return strings.HasPrefix(e.Request, "PUT ") && strings.Contains(e.Request, "/log/") && !e.Answered.IsZero()
}
