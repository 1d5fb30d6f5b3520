package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// commitRows measures what it costs to save a tree, and to get it back.
func commitRows(l *lab) error {
	tree := l.path("tree")
	if err := makeTree(tree); err != nil {
		return err
	}
	if err := l.firstCommit(tree); err != nil {
		return err
	}
	if err := l.laterCommits(tree); err != nil {
		return err
	}
	return l.checkouts(tree)
}

// warmed are contenders that find the tree they save in the page cache, whoever was there before: borg drops what it has read.
func warmed(tree string, contenders ...contender) []contender {
	for i, c := range contenders {
		contenders[i].prepare = func(round int) error {
			if c.prepare != nil {
				if err := c.prepare(round); err != nil {
					return err
				}
			}
			return cmp.Or(readAll(tree+"/data"), readAll(tree+"/weights"))
		}
	}
	return contenders
}

// readAll reads every file below dir.
func readAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

// clear removes what an earlier round left.
func (l *lab) clear(names ...string) error {
	for _, name := range names {
		if err := os.RemoveAll(l.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// putAway makes paths free without deleting anything: ext4 passes over each inode that was deleted in the last minute when it makes a file, and
// after two trees that takes longer than all else of a checkout. A new machine has deleted nothing.
func (l *lab) putAway(names ...string) error {
	away, err := os.MkdirTemp(l.dir, "away-")
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(l.path(name), filepath.Join(away, filepath.Base(name))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (l *lab) resticInit() error {
	os.Setenv("RESTIC_PASSWORD", "bench")
	if err := l.clear("restic"); err != nil {
		return err
	}
	return sh(l.dir, "restic init -q -r restic")
}

func (l *lab) borgInit() error {
	if err := l.clear("borg"); err != nil {
		return err
	}
	return sh(l.dir, "borg init -e none borg")
}

// firstCommit races the first save of the tree.
func (l *lab) firstCommit(tree string) error {
	contenders := []contender{
		{"replicate", func(int) error { return os.RemoveAll(tree + "/.replicate") }, func(int) error {
			r, err := l.startRecorder(tree)
			if err != nil {
				return err
			}
			if err := r.init(tree); err != nil {
				return err
			}
			if err := r.commit(0); err != nil {
				return err
			}
			return r.end()
		}},
		{"cp -a", func(int) error { return l.putAway("copy") }, func(int) error {
			return sh(l.dir, "mkdir copy && cp -a tree/data tree/weights copy")
		}},
		{"cp -a + sync", func(int) error { return l.putAway("copy") }, func(int) error {
			return sh(l.dir, "mkdir copy && cp -a tree/data tree/weights copy && sync -f copy")
		}},
	}
	if installed("zstd") {
		contenders = append(contenders, contender{"tar+zstd", nil, func(int) error {
			return sh(l.dir, "tar -C tree -c data weights | zstd -q -1 -T0 -f -o tree.tar.zst")
		}})
	}
	if installed("restic") {
		contenders = append(contenders, contender{"restic", func(int) error { return l.resticInit() }, func(int) error {
			return sh(tree, "restic backup -q -r ../restic data weights")
		}})
	}
	if installed("borg") {
		contenders = append(contenders, contender{"borg", func(int) error { return l.borgInit() }, func(int) error {
			return sh(tree, "borg create ../borg::1 data weights")
		}})
	}
	times, err := l.race(warmed(tree, contenders...)...)
	if err != nil {
		return err
	}
	bar := fmt.Sprintf("%s (2 x cp -a)", seconds(2*times["cp -a"].median()))
	if r, ok := times["restic"]; ok {
		bar += fmt.Sprintf(", %s (restic / 5)", seconds(r.median()/5))
	}
	l.add("first commit of 225 MB, 2,002 files", times["replicate"].String(), bar,
		beside(times, "cp -a", "cp -a + sync", "tar+zstd", "restic", "borg")...)
	return nil
}

// laterCommits measures commits of an unchanged tree and of one in which 10 % of the weights changed, then what is held.
func (l *lab) laterCommits(tree string) error {
	if err := os.RemoveAll(tree + "/.replicate"); err != nil {
		return err
	}
	r, err := l.startRecorder(tree)
	if err != nil {
		return err
	}
	if err := r.init(tree); err != nil {
		return err
	}
	step := 0
	commit := func(int) error { step++; return r.commit(step) }
	unchanged := []contender{{"replicate", nil, commit}}
	save := map[string]func(int) error{
		"restic": func(int) error { return sh(tree, "restic backup -q -r ../restic data weights") },
		"borg":   func(round int) error { return sh(tree, "borg create ../borg::%d data weights", time.Now().UnixNano()) },
	}
	peers := map[string]func() error{"restic": l.resticInit, "borg": l.borgInit}
	for name, init := range peers {
		if !installed(name) {
			delete(save, name)
			continue
		}
		if err := init(); err != nil {
			return err
		}
		if err := save[name](0); err != nil {
			return err
		}
		unchanged = append(unchanged, contender{name, nil, save[name]})
	}
	times, err := l.race(warmed(tree, unchanged...)...)
	if err != nil {
		return err
	}
	l.add("commit, 2,002 files unchanged", times["replicate"].String(), "30 ms", beside(times, "restic", "borg")...)

	changed := []contender{{"replicate", func(round int) error { return changeTree(tree, round) }, commit}}
	for name, run := range save {
		changed = append(changed, contender{name, nil, run})
	}
	rounds := l.rounds
	l.rounds = 4 // with the first one: five states of the tree
	times, err = l.race(warmed(tree, changed...)...)
	l.rounds = rounds
	if err != nil {
		return err
	}
	l.add("commit, 10 % of the weights changed", times["replicate"].String(), "150 ms", beside(times, "restic", "borg")...)
	if err := r.end(); err != nil {
		return err
	}
	held := map[string]string{"replicate": tree + "/.replicate/storage", "restic": l.path("restic"), "borg": l.path("borg")}
	var beside []string
	ours, err := diskUse(held["replicate"])
	if err != nil {
		return err
	}
	for name := range save {
		n, err := diskUse(held[name])
		if err != nil {
			return err
		}
		beside = append(beside, name+" "+megabytes(n))
	}
	ideal := int64(2*weights + smallFiles*smallSize + 4*2*weights/10)
	l.add("held after five commits", megabytes(ours), megabytes(ideal*105/100)+" (1.05 x ideal)", beside...)
	return nil
}

// checkouts races getting everything back, and one file.
func (l *lab) checkouts(tree string) error {
	contenders := []contender{
		{"replicate", func(int) error { return l.putAway("out") }, func(int) error {
			_, err := command(tree, l.binary, "checkout", "-o", l.path("out"), "@latest")
			return err
		}},
		{"cp -a", func(int) error { return l.putAway("copy") }, func(int) error {
			return sh(l.dir, "mkdir copy && cp -a tree/data tree/weights copy")
		}},
	}
	one := []contender{
		{"replicate", nil, func(int) error { _, err := command(tree, l.binary, "cat", "@latest:data/07/0007.txt"); return err }},
		{"cat", nil, func(int) error { return sh(tree, "cat data/07/0007.txt") }},
	}
	if installed("restic") {
		contenders = append(contenders, contender{"restic", func(int) error { return l.putAway("out2") }, func(int) error {
			return sh(l.dir, "restic restore -q -r restic latest -t out2")
		}})
		one = append(one, contender{"restic", nil, func(int) error { return sh(l.dir, "restic dump -q -r restic latest /data/07/0007.txt") }})
	}
	if installed("borg") {
		archive, err := command(l.dir, "borg", "list", "--short", "--last", "1", "borg")
		if err != nil {
			return err
		}
		archive = lastLine(archive)
		contenders = append(contenders, contender{"borg", func(int) error { return cmp.Or(l.putAway("out3"), os.Mkdir(l.path("out3"), 0o755)) }, func(int) error {
			return sh(l.path("out3"), "borg extract ../borg::%s", archive)
		}})
		one = append(one, contender{"borg", nil, func(int) error {
			return sh(l.dir, "borg extract --stdout borg::%s data/07/0007.txt", archive)
		}})
	}
	times, err := l.race(contenders...)
	if err != nil {
		return err
	}
	l.add("checkout of all", times["replicate"].String(),
		fmt.Sprintf("%s (1.3 x cp -a)", seconds(times["cp -a"].median()*13/10)), beside(times, "cp -a", "restic", "borg")...)
	times, err = l.race(one...)
	if err != nil {
		return err
	}
	l.add("one file of one commit, whole process", times["replicate"].String(), "", beside(times, "cat", "restic", "borg")...)
	return nil
}

// largeRows measures the memory of a recorder that commits a file of 10 GB.
func largeRows(l *lab) error {
	const gigabytes = 10
	dir := l.path("large")
	if err := writeRandom(dir+"/model.bin", gigabytes<<30, rand.Reader); err != nil {
		return err
	}
	r, err := l.startRecorder(dir)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := r.init(dir); err != nil {
		return err
	}
	if err := r.commit(0); err != nil {
		return err
	}
	took := time.Since(start)
	if err := r.end(); err != nil {
		return err
	}
	l.add("recorder's peak memory, file of 10 GB", megabytes(peak(r.cmd)), "200 MB", "took "+seconds(took))
	return l.clear("large")
}
