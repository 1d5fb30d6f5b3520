package repository

import (
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	// maxLeftOut bounds the report of a snapshot; what is beyond is added up in its last line.
	maxLeftOut = 1000
	// measureEntries and measureTime bound what a snapshot spends on the sizes of what it leaves out, as a data set can have
	// millions of files: 20,000 lstats take 30 ms on a local disk, and a slow network file system may cost no more than 100 ms.
	measureEntries = 20_000
	measureTime    = 100 * time.Millisecond
)

// A measurer finds the sizes of what is left out, each path once in its life: later reports repeat the first size.
type measurer struct {
	root  string
	now   func() time.Time
	sizes map[string]LeftOut

	left  int       // entries that may still be looked at
	until time.Time // when to stop
}

// measure fills in the sizes of a report and shortens it.
func (m *measurer) measure(list []LeftOut) []LeftOut {
	m.left, m.until = measureEntries, m.now().Add(measureTime)
	for i := range list {
		l := &list[i]
		if known, ok := m.sizes[l.Path]; ok {
			l.Bytes, l.More = known.Bytes, known.More
			continue
		}
		l.Bytes, l.More = m.size(l.Path)
		m.sizes[l.Path] = *l
	}
	return shorten(list)
}

// size adds up the sizes of the files at and below a path; more says that it stopped early.
func (m *measurer) size(path string) (bytes int64, more bool) {
	full := m.root + "/" + path
	if !strings.HasSuffix(path, "/") {
		st, err := lstat(full)
		if err != nil || st.kind != File {
			return 0, false
		}
		return st.size, false
	}
	dirs := []string{full}
	for len(dirs) > 0 {
		if m.left <= 0 || m.now().After(m.until) {
			return bytes, true
		}
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		found, n, cut := m.list(dir)
		dirs = append(dirs, found...)
		if bytes += n; cut {
			return bytes, true
		}
	}
	return bytes, false
}

// list returns the directories in a directory, with "/" at the end, and the size of its files. cut says that there are too many.
func (m *measurer) list(dir string) (dirs []string, bytes int64, cut bool) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, 0, false
	}
	defer f.Close()
	for {
		names, err := f.ReadDir(statBatch)
		for _, e := range names {
			if m.left--; m.left < 0 {
				return dirs, bytes, true
			}
			if e.IsDir() {
				dirs = append(dirs, dir+e.Name()+"/")
			} else if st, err := lstat(dir + e.Name()); err == nil && st.kind == File {
				bytes += st.size
			}
		}
		if err != nil {
			return dirs, bytes, false
		}
	}
}

// shorten adds up what is beyond the bound of a report in its last line.
func shorten(list []LeftOut) []LeftOut {
	if len(list) <= maxLeftOut {
		return list
	}
	rest := list[maxLeftOut-1:]
	last := LeftOut{Why: fmt.Sprintf("%d more", len(rest))}
	for _, l := range rest {
		last.Bytes += l.Bytes
		last.More = last.More || l.More
	}
	return append(list[:maxLeftOut-1:maxLeftOut-1], last)
}
