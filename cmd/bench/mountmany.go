package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// mountManyRows measures the mount of 100,000 experiments. Every figure is of a mount that was just made.
func mountManyRows(l *lab) error {
	dir := l.path("mount-100k")
	if _, err := manyExperiments(filepath.Join(dir, ".replicate", "storage"), 100_000, 1, 5000); err != nil {
		return err
	}
	if _, err := command(dir, l.binary, "ls", "-n", "1"); err != nil { // the index
		return err
	}
	mnt := l.path("mnt-100k")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	var memory int64
	times := map[string]timing{}
	steps := []struct{ what, bar, line string }{
		{"ls of experiments/, first", "600 ms", "ls experiments"},
		{"ls -l of experiments/, first", "1 s", "ls -l experiments"},
		{"ls latest/, first", "", "ls latest/"},
		{"stat experiments.csv, first", "", "stat experiments.csv"},
		{"cat experiments.csv, first", "", "cat experiments.csv"},
	}
	way := l.ourMount(dir)
	for range l.rounds {
		for _, s := range steps {
			start := time.Now()
			if err := way.mount(mnt); err != nil {
				return err
			}
			times["ready"] = append(times["ready"], time.Since(start))
			start = time.Now()
			_, err := command(mnt, "sh", "-c", s.line+" >/dev/null")
			times[s.what] = append(times[s.what], time.Since(start))
			if m, e := l.serverMemory(); e == nil {
				memory = max(memory, m)
			}
			if err = errors.Join(err, way.unmount(mnt)); err != nil {
				return err
			}
		}
	}
	l.add("mount ready, 100k experiments", times["ready"].String(), "100 ms")
	for _, s := range steps {
		l.add(s.what+", 100k", times[s.what].String(), s.bar)
	}
	l.add("memory of the server after the largest of these", megabytes(memory), "64 MB")
	return os.RemoveAll(dir)
}

// mountMemoryRow walks a million files: commits of empty files that differ in one.
func mountMemoryRow(l *lab) error {
	const folders, each, commits = 200, 1000, 5
	dir := l.path("mount-files")
	for i := range folders * each {
		name := filepath.Join(dir, "data", strconv.Itoa(i/each), strconv.Itoa(i))
		if i%each == 0 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			return err
		}
	}
	r, err := l.startRecorder(dir)
	if err != nil {
		return err
	}
	if err := r.init(dir); err != nil {
		return err
	}
	for step := range commits {
		if err := os.WriteFile(filepath.Join(dir, "data", "step"), []byte(strconv.Itoa(step)), 0o644); err != nil {
			return err
		}
		if err := r.commit(step); err != nil {
			return err
		}
	}
	if err := r.end(); err != nil {
		return err
	}
	mnt := l.path("mnt-files")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	way := l.ourMount(dir)
	if err := way.mount(mnt); err != nil {
		return err
	}
	walk := func(note func(time.Duration)) error {
		return timed(mnt, fmt.Sprintf("[ $(find latest/commits/ -ls | wc -l) -gt %d ]", commits*folders*each), note)
	}
	var first, second time.Duration
	err = errors.Join(walk(func(d time.Duration) { first = d }), walk(func(d time.Duration) { second = d }))
	memory, err2 := l.serverMemory()
	if err = errors.Join(err, err2, way.unmount(mnt)); err != nil {
		return err
	}
	l.add("find -ls of 1,000,000 files, first", seconds(first), "")
	l.add("find -ls of 1,000,000 files, again", seconds(second), "")
	l.add("memory of the server after these", megabytes(memory), "64 MB")
	return os.RemoveAll(dir)
}

// serverMemory is what the server of the mount keeps in memory, without the pages of files that it maps and without those that it gave back, which
// are there until the system wants them.
func (l *lab) serverMemory() (int64, error) {
	servers, err := exec.Command("pgrep", "-f", "^"+l.binary+" mount-process server$").Output()
	if err != nil {
		return 0, fmt.Errorf("find the server: %w", err)
	}
	pids := bytes.Fields(servers)
	table, err := os.ReadFile("/proc/" + string(pids[len(pids)-1]) + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	kb := func(name string) (n int64) {
		_, rest, _ := strings.Cut(string(table), "\n"+name+":")
		_, err2 := fmt.Sscan(rest, &n)
		err = errors.Join(err, err2)
		return n
	}
	memory := kb("Anonymous") - kb("LazyFree")
	return memory << 10, err
}

// visibleRows measures how soon a mount shows what a running training records.
func visibleRows(l *lab) error {
	dir := l.path("visible")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "train.py"), []byte("print(1)\n"), 0o644); err != nil {
		return err
	}
	r, err := l.startRecorder(dir)
	if err != nil {
		return err
	}
	if err := r.init(dir); err != nil {
		return err
	}
	mnt := l.path("mnt-visible")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	way := l.ourMount(dir)
	if err := way.mount(mnt); err != nil {
		return err
	}
	var commits, points timing
	for i := range max(5, l.rounds) {
		start := time.Now()
		if err = r.commit(i); err == nil {
			err = appears(func() bool {
				found, _ := filepath.Glob(filepath.Join(mnt, "latest/commits", fmt.Sprintf("%08d-*", i)))
				return len(found) == 1
			})
		}
		if err != nil {
			break
		}
		commits = append(commits, time.Since(start))
		step := 1000 + i
		start = time.Now()
		if err = r.log(step); err == nil {
			err = appears(func() bool {
				table, _ := os.ReadFile(filepath.Join(mnt, "latest/metrics.csv"))
				return bytes.Contains(table, fmt.Appendf(nil, "\n%d,", step))
			})
		}
		if err != nil {
			break
		}
		points = append(points, time.Since(start))
	}
	if err = errors.Join(err, way.unmount(mnt), r.end()); err != nil {
		return err
	}
	l.add("commit(), until it is seen in the mount", commits.String(), "1 s")
	l.add("log(), until it is seen in metrics.csv", points.String(), "1 s")
	return nil
}

// appears waits until something is so.
func appears(so func() bool) error {
	for range 10_000 {
		if so() {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("it is not seen within ten seconds")
}
