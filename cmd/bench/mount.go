package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A mounted tree is one way to see the files of the last commit.
type mounted struct {
	name    string
	mount   func(dir string) error
	unmount func(dir string) error
	tree    func(dir string) string // where data/ and weights/ are below the mount point
}

// mountRows measures the mount beside those of the peers and the same tree on disk.
func mountRows(l *lab) error {
	tree := l.path("mtree")
	if err := makeTree(tree); err != nil {
		return err
	}
	if err := l.commitOnce(tree); err != nil {
		return err
	}
	ways := []mounted{l.ourMount(tree)}
	if installed("restic") {
		if err := l.resticInit(); err != nil {
			return err
		}
		if err := sh(tree, "restic backup -q -r ../restic data weights"); err != nil {
			return err
		}
		ways = append(ways, l.resticMount())
	}
	if installed("borg") {
		if err := l.borgInit(); err != nil {
			return err
		}
		if err := sh(tree, "borg create ../borg::1 data weights"); err != nil {
			return err
		}
		ways = append(ways, l.borgMount())
	}
	figures := map[string]map[string]timing{} // what is measured → way → times
	note := func(what, way string, d time.Duration) {
		if figures[what] == nil {
			figures[what] = map[string]timing{}
		}
		figures[what][way] = append(figures[what][way], d)
	}
	for range l.rounds {
		for _, way := range ways {
			dir := l.path("mnt-" + way.name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			start := time.Now()
			if err := way.mount(dir); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			note("ready", way.name, time.Since(start))
			err := l.walkAndRead(way.tree(dir), func(what string, d time.Duration) { note(what, way.name, d) })
			for range 5 {
				err = errors.Join(err,
					timed(tree, catLarge, func(d time.Duration) { note("later "+way.name, "native", d) }),
					timed(way.tree(dir), catLarge, func(d time.Duration) { note("later "+way.name, way.name, d) }))
			}
			if err := way.unmount(dir); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
		if err := l.walkAndRead(tree, func(what string, d time.Duration) { note(what, "native", d) }); err != nil {
			return err
		}
	}
	for _, row := range []struct{ what, text string }{
		{"ready", "mount ready"},
		{"walk", "find + stat of 2,000 files, first"},
		{"first", "first read of 100 MB"},
		{"second", "second read of 100 MB, behind the first"},
		{"later replicate", "later reads of 100 MB, in turns with native"},
		{"copy", "cp -r of 2,000 small files, first"},
		{"again", "cp -r of 2,000 small files, again"},
	} {
		f := figures[row.what]
		native := f["native"].median()
		bar := map[string]string{
			"ready": "100 ms", "walk": "50 ms", "first": "150 ms",
			"second": seconds(native*100/95) + " (0.95 of native)", "later replicate": seconds(native*100/95) + " (0.95 of native)",
			"copy": seconds(3*native) + " (3 x native)", "again": seconds(2*native) + " (2 x native)",
		}[row.what]
		l.add(row.text, f["replicate"].String(), bar, beside(f, "native", "restic", "borg")...)
	}
	return nil
}

// catLarge reads the large file of a tree.
const catLarge = "cat weights/base.bin >/dev/null"

// walkAndRead does what the rows measure in a tree, in their order.
func (l *lab) walkAndRead(tree string, note func(string, time.Duration)) error {
	steps := []struct{ what, line string }{
		{"walk", "find data -type f -printf '%s' >/dev/null"},
		{"first", catLarge},
		{"second", catLarge},
		{"copy", "cp -r data " + l.path("copied")},
		{"again", "cp -r data " + l.path("copied")},
	}
	for _, s := range steps {
		if err := l.clear("copied"); err != nil {
			return err
		}
		if err := timed(tree, s.line, func(d time.Duration) { note(s.what, d) }); err != nil {
			return err
		}
	}
	return l.clear("copied")
}

// timed runs a line of shell in a directory.
func timed(dir, line string, note func(time.Duration)) error {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, lastLine(string(out)))
	}
	note(time.Since(start))
	return nil
}

// commitOnce records a finished experiment of a directory, with one commit.
func (l *lab) commitOnce(dir string) error {
	r, err := l.startRecorder(dir)
	if err != nil {
		return err
	}
	if err := r.init(dir); err != nil {
		return err
	}
	if err := r.commit(0); err != nil {
		return err
	}
	return r.end()
}

func (l *lab) ourMount(project string) mounted {
	return mounted{"replicate",
		func(dir string) error { _, err := command(project, l.binary, "mount", dir); return err },
		func(dir string) error { _, err := command(project, l.binary, "umount", dir); return err },
		func(dir string) string {
			commits, _ := filepath.Glob(filepath.Join(dir, "latest", "commits", "*-*"))
			if len(commits) == 0 {
				return filepath.Join(dir, "latest", "commits")
			}
			return commits[0]
		}}
}

func (l *lab) resticMount() mounted {
	return mounted{"restic",
		l.background("restic", "-r", l.path("restic"), "mount", "--no-lock"),
		fuseUnmount,
		func(dir string) string { return filepath.Join(dir, "snapshots", "latest") }}
}

func (l *lab) borgMount() mounted {
	return mounted{"borg",
		func(dir string) error { return sh(l.dir, "borg mount borg::1 %s", dir) },
		func(dir string) error { return sh(l.dir, "borg umount %s", dir) },
		func(dir string) string { return dir }}
}

// background starts a mount that stays in the foreground, and waits until something is mounted.
func (l *lab) background(name string, args ...string) func(string) error {
	return func(dir string) error {
		var before, now syscall.Stat_t
		if err := syscall.Stat(dir, &before); err != nil {
			return err
		}
		cmd := exec.Command(name, append(args, dir)...)
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for range 6000 {
			select {
			case err := <-ended:
				return fmt.Errorf("%s ended: %v: %s", name, err, lastLine(errs.String()))
			case <-time.After(5 * time.Millisecond):
			}
			if err := syscall.Stat(dir, &now); err == nil && now.Dev != before.Dev {
				return nil
			}
		}
		return fmt.Errorf("%s: nothing mounted within 30 s", name)
	}
}

func fuseUnmount(dir string) error {
	var err error
	for range 50 {
		if err = sh("/", "fusermount3 -u %s", dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
