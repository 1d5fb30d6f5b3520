package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate/storage/storagetest/servers"
)

// mounts measures a large file read in order through mounts, cold.
func (f *far) mounts() error {
	dir := f.path("big")
	if err := writeRandom(filepath.Join(dir, "big.bin"), bigFile, rand.NewChaCha8([32]byte{4})); err != nil {
		return err
	}
	if err := f.project(dir, "big"); err != nil {
		return err
	}
	if err := f.uploaded(dir); err != nil {
		return err
	}
	ways := []mounted{f.ourMount(dir)}
	if installed("restic") {
		if err := f.direct(func() error {
			return sh(dir, "restic init -q -r %s && restic backup -q -r %[1]s big.bin", f.restic(-1))
		}); err != nil {
			return err
		}
		ways = append(ways, mounted{"restic", f.background("restic", "-r", f.restic(-1), "mount", "--no-lock"), fuseUnmount,
			func(dir string) string { return filepath.Join(dir, "snapshots", "latest") }})
	}
	if installed("rclone") && installed("curl") { // rclone would send it in parts, which versitygw is slow with
		if err := f.direct(func() error { return f.curl("-T %s/big.bin", "rclone-big/big.bin", dir) }); err != nil {
			return err
		}
		ways = append(ways, mounted{"rclone", f.background("rclone", "mount", "far:"+servers.Bucket+"/rclone-big"), fuseUnmount,
			func(dir string) string { return dir }})
	}
	if err := f.readMounts("first read of 1 GB through the mount, in order", f.atLink(bigFile, 60), ways); err != nil {
		return err
	}
	const near = 20 * time.Millisecond
	f.network(near, 0)
	defer f.network(farAway, f.link)
	return f.readMounts(fmt.Sprintf("  the same, %v away and a link without limit", near), seconds(bigFile*time.Second/300_000_000)+" (300 MB/s)", ways)
}

func (f *far) readMounts(what, bar string, ways []mounted) error {
	var contenders []contender
	times := map[string]timing{}
	for _, way := range ways {
		mnt := f.path("far-" + way.name)
		contenders = append(contenders, contender{way.name, nil, func(int) error {
			return timed(way.tree(mnt), "cat big.bin >/dev/null", func(d time.Duration) { times[way.name] = append(times[way.name], d) })
		}})
	}
	for i, c := range f.counting(contenders...) {
		mnt := f.path("far-" + c.name)
		if err := os.MkdirAll(mnt, 0o755); err != nil {
			return err
		}
		for round := range f.rounds {
			if err := f.forget(); err != nil {
				return err
			}
			if err := ways[i].mount(mnt); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			err := c.run(round)
			if e := ways[i].unmount(mnt); err == nil {
				err = e
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	f.addFar(what, bar, times, contenders...)
	return nil
}
