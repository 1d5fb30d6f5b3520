package fs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs/view"
)

// A mirror is a view of a folder on disk, taken when it is opened: the simplest view there is, to try the server and its
// processes on, with the folder itself to compare with. Its file "growing" is read afresh from beside the folder.
type mirror struct {
	dir     string
	forever bool       // the root never changes either
	nodes   []mirrored // breadth first; the id of a node is its place + 1
}

type mirrored struct {
	path     string
	parent   int
	attr     view.Attr
	children []int
}

const growingName = "growing"

func openMirror(_ context.Context, o Options) (View, error) {
	dir, ok := strings.CutPrefix(o.Storage, "mirror://")
	if !ok {
		return nil, replicate.Errorf(replicate.NotFound, "no repository at %s", o.Storage).WithHint("try another")
	}
	v := &mirror{dir: dir}
	if err := v.add("", 0); err != nil {
		return nil, err
	}
	for i := 0; i < len(v.nodes); i++ {
		if v.nodes[i].attr.Mode&view.TypeMask != view.TypeDir {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(dir, v.nodes[i].path))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if i == 0 && view.Noise(e.Name()) {
				return nil, fmt.Errorf("%s: a live directory never has that", e.Name())
			}
			if err := v.add(filepath.Join(v.nodes[i].path, e.Name()), i); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func (v *mirror) add(path string, parent int) error {
	info, err := os.Lstat(filepath.Join(v.dir, path))
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	size := st.Size
	if info.IsDir() {
		size = 0
	}
	if path != "" {
		v.nodes[parent].children = append(v.nodes[parent].children, len(v.nodes))
	}
	v.nodes = append(v.nodes, mirrored{path, parent, view.Attr{Mode: st.Mode, Size: size, Mtime: info.ModTime().UnixNano()}, nil})
	return nil
}

func (v *mirror) node(id view.ID) (*mirrored, error) {
	if id < 1 || int(id) > len(v.nodes) {
		return nil, view.ErrStale
	}
	return &v.nodes[id-1], nil
}

func (v *mirror) Lookup(_ context.Context, dir view.ID, name string) (view.ID, error) {
	n, err := v.node(dir)
	if err != nil {
		return 0, err
	}
	for _, c := range n.children {
		if filepath.Base(v.nodes[c].path) == name {
			return view.ID(c + 1), nil
		}
	}
	return 0, os.ErrNotExist
}

func (v *mirror) Attr(_ context.Context, id view.ID) (view.Attr, error) {
	n, err := v.node(id)
	if err != nil {
		return view.Attr{}, err
	}
	a := n.attr
	if n.path == growingName {
		info, err := os.Stat(v.dir + "." + growingName)
		if err != nil {
			return a, err
		}
		a.Size = info.Size()
	}
	return a, nil
}

func (v *mirror) List(_ context.Context, dir view.ID, cookie uint64, yield func(uint64, view.Entry) bool) error {
	n, err := v.node(dir)
	if err != nil {
		return err
	}
	for _, c := range n.children {
		at := uint64(c) + FirstCookie
		e := view.Entry{Name: filepath.Base(v.nodes[c].path), ID: view.ID(c + 1), Mode: v.nodes[c].attr.Mode, Attr: &v.nodes[c].attr}
		if e.Name == growingName {
			e.Attr = nil
		}
		if at > cookie && !yield(at, e) {
			break
		}
	}
	return nil
}

func (v *mirror) Link(_ context.Context, id view.ID) (string, error) {
	n, err := v.node(id)
	if err != nil {
		return "", err
	}
	return os.Readlink(filepath.Join(v.dir, n.path))
}

func (v *mirror) Open(context.Context, view.ID) error { return nil }

func (v *mirror) Content(_ context.Context, id view.ID) (io.ReaderAt, error) {
	n, err := v.node(id)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(v.dir, n.path)
	switch n.path {
	case growingName:
		path = v.dir + "." + growingName
	case "slow":
		pause(context.Background(), 100*time.Millisecond) // long enough to be killed over
	case "damaged":
		return nil, replicate.Errorf(replicate.Corrupt, "%s is damaged", n.path)
	}
	return fileAt(path), nil
}

func (v *mirror) Life(id view.ID) view.Life {
	if id == view.Root && !v.forever {
		return view.Live
	}
	if n, err := v.node(id); err == nil && n.path == growingName {
		return view.Growing
	}
	return view.Forever
}

func (v *mirror) Size() int64                                    { return 1 << 30 }
func (v *mirror) Instance() int64                                { return 1 }
func (v *mirror) Refresh(context.Context) ([]view.Change, error) { return nil, nil }
func (v *mirror) Wake() string                                   { return "" }
func (v *mirror) Close() error                                   { return nil }

// fileAt reads a file by path each time.
type fileAt string

func (path fileAt) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(string(path))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}
