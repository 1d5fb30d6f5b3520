package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest"
)

// hostile returns a tree of everything that is hard to write.
func hostile() []fake {
	fakes := append(everyForm(),
		fakeDir("closed"), fakeFile("closed/inside", "x"), fakeDir("closed/deep"), fakeDir("hollow"),
		fakeFile("mode 0000", "x"), fakeFile("setuid", "x"), fakeFile("before 1970", "x"),
		fakeFile("new\nline", "x"), fakeFile("\xff not UTF-8", "x"), fakeFile(`"quoted" 'names' \`, "x"), fakeFile(strings.Repeat("n", 255), "x"),
		fakeLink("to nothing", "no/such/file"), fakeLink("outside", "../../etc/passwd"), fakeLink("to a folder", "group"), fakeLink("absolute", "/etc"),
	)
	for i := range fakes {
		switch e := &fakes[i].entry; e.Path {
		case "closed", "closed/deep":
			e.Mode = 0o500
		case "mode 0000":
			e.Mode = 0
		case "setuid":
			e.Mode = 0o6755
		case "before 1970":
			e.Mtime = -1
		}
	}
	return fakes
}

// onDisk describes what is below a folder as entries: path, kind, mode, size, mtime, hash, target.
func onDisk(t *testing.T, dir string) map[string]Entry {
	t.Helper()
	found := map[string]Entry{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		e := Entry{Path: path[len(dir)+1:], Mode: uint32(st.Mode) & 0o7777, Mtime: info.ModTime().UnixNano()}
		switch {
		case d.IsDir():
			e.Kind = Dir
		case d.Type() == fs.ModeSymlink:
			e.Kind = Link
			e.Target, err = os.Readlink(path)
		default:
			e.Size = info.Size()
			e.Hash = hashOf(readAnyway(t, path, info.Mode()))
		}
		found[e.Path] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// readAnyway reads a file that its owner may not read.
func readAnyway(t *testing.T, path string, mode fs.FileMode) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		os.Chmod(path, 0o400)
		data, err = os.ReadFile(path)
		os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// targetDir returns a folder that can be removed whatever is in it.
func targetDir(t *testing.T) string {
	dir := t.TempDir()
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	return dir
}

// checkOnDisk compares a folder with the entries of a tree that was checked out into it.
func checkOnDisk(t *testing.T, dir string, entries []Entry) {
	t.Helper()
	found := onDisk(t, dir)
	for _, e := range entries {
		want := Entry{Path: e.Path, Kind: e.Kind, Mode: e.Mode, Size: e.Size, Mtime: e.Mtime, Hash: e.Hash, Target: e.Target}
		if got := found[e.Path]; !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", e.Path, got, want)
		}
		delete(found, e.Path)
	}
	for path := range found {
		t.Errorf("%q should not be there", path)
	}
}

func TestCheckoutEqualsTree(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			r, tree := b.opened(b.tree(hostile()...))
			dir := filepath.Join(targetDir(t), "new", "folder")
			var last, total int64
			report, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir, Progress: func(done, all int64) { last, total = done, all }})
			if err != nil {
				t.Fatal(err)
			}
			checkOnDisk(t, dir, tree.Entries)
			if want := (CheckoutReport{Files: tree.Files, Bytes: tree.Bytes}); report != want {
				t.Errorf("report %+v, want %+v", report, want)
			}
			if last != tree.Bytes || total != tree.Bytes {
				t.Errorf("progress ended at %d of %d, want %d", last, total, tree.Bytes)
			}
			report, err = r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir, Replace: func(paths []string) error { return fmt.Errorf("replaces %q", paths) }})
			if want := (CheckoutReport{Unchanged: tree.Files}); err != nil || report != want {
				t.Errorf("again: report %+v, %v", report, err)
			}
			checkOnDisk(t, dir, tree.Entries)
		})
	}
}

func TestCheckoutMakesHoles(t *testing.T) {
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(fakeFile("zeros", string(make([]byte, 5_000_000))), fakeFile("few zeros", string(make([]byte, 100_000)))))
	dir := t.TempDir()
	if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	checkOnDisk(t, dir, tree.Entries)
	for _, e := range tree.Entries {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, e.Path), &st); err != nil || st.Blocks != 0 {
			t.Errorf("%s takes %d blocks, %v", e.Path, st.Blocks, err)
		}
	}
}

func TestCheckoutOfPaths(t *testing.T) {
	b := newBuilder(t, memStore(t))
	r, tree := b.opened(b.tree(fakeDir("a"), fakeFile("a/1", "1"), fakeDir("a/b"), fakeFile("a/b/2", "2"), fakeFile("a-b", "3"), fakeFile("ab", "4")))
	tests := []struct {
		paths []string
		want  []string
	}{
		{[]string{"a"}, []string{"a", "a/1", "a/b", "a/b/2"}},
		{[]string{"a/"}, []string{"a", "a/1", "a/b", "a/b/2"}},
		{[]string{"./a/b/2"}, []string{"a", "a/b", "a/b/2"}},
		{[]string{"ab", "a/1", "ab"}, []string{"a", "a/1", "ab"}},
		{[]string{"."}, []string{"a", "a/1", "a/b", "a/b/2", "a-b", "ab"}},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.paths, " "), func(t *testing.T) {
			dir := t.TempDir()
			if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir, Paths: tt.paths}); err != nil {
				t.Fatal(err)
			}
			var want []Entry
			for _, path := range tt.want {
				want = append(want, *tree.Lookup(path))
			}
			checkOnDisk(t, dir, want)
		})
	}
}

func TestCheckoutOfNoPath(t *testing.T) {
	b := newBuilder(t, memStore(t))
	r, tree := b.opened(b.tree(fakeDir("models"), fakeFile("models/weights.pt", "1")))
	for path, want := range map[string]string{"models/weigths.pt": "did you mean \"models/weights.pt\"?", "model": "did you mean \"models\"?", "xyz": "", "models/w": "did you mean \"models\"?"} {
		dir := filepath.Join(t.TempDir(), "new")
		_, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir, Paths: []string{"models", path}})
		if replicate.KindOf(err) != replicate.NotFound || err.Error() != "check out: "+path+" is not in this commit" || replicate.HintOf(err) != want {
			t.Errorf("%s: %v, hint %q", path, err, replicate.HintOf(err))
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was made", path)
		}
	}
}

// put writes files below a folder; a name that ends in "/" is a folder, "a -> b" a link.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		name, target, isLink := strings.Cut(path, " -> ")
		full := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		switch {
		case err != nil:
		case strings.HasSuffix(path, "/"):
			err = os.MkdirAll(full, 0o755)
		case isLink:
			err = os.Symlink(target, full)
		default:
			err = os.WriteFile(full, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckoutAsksBeforeReplacing(t *testing.T) {
	entries := []fake{fakeFile("file", "new"), fakeDir("dir"), fakeFile("dir/a", "new"), fakeLink("link", "file")}
	tests := []struct {
		name  string
		there map[string]string
		asked []string          // for what is replaced
		kept  map[string]string // content by path
	}{
		{"nothing there", nil, nil, nil},
		{"other files", map[string]string{"other": "x", "dir/b": "x"}, nil, nil},
		{"same content", map[string]string{"file": "new", "dir/a": "new", "link -> file": ""}, nil, nil},
		{"same size", map[string]string{"file": "old", "dir/a": "new"}, []string{"file"}, map[string]string{"file": "old"}},
		{"another size", map[string]string{"file": "older", "dir/a": ""}, []string{"dir/a", "file"}, map[string]string{"file": "older", "dir/a": ""}},
		{"another link", map[string]string{"link -> dir": ""}, []string{"link"}, map[string]string{"link": "-> dir"}},
		{"link for a file", map[string]string{"file -> /etc/passwd": ""}, []string{"file"}, map[string]string{"file": "-> /etc/passwd"}},
		{"file for a link", map[string]string{"link": "x"}, []string{"link"}, map[string]string{"link": "x"}},
		{"file for a folder", map[string]string{"dir": "x"}, []string{"dir"}, map[string]string{"dir": "x"}},
		{"link for a folder", map[string]string{"dir -> /tmp": ""}, []string{"dir"}, map[string]string{"dir": "-> /tmp"}},
		{"empty folder for a file", map[string]string{"file/": ""}, []string{"file"}, map[string]string{"file": "folder"}},
		{"folder for a file", map[string]string{"file/x": "y"}, []string{"file"}, map[string]string{"file/x": "y"}},
	}
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(entries...))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "keep")
			put(t, dir, tt.there)
			before := onDisk(t, dir)
			var asked []string
			no := errors.New("no")
			o := CheckoutOptions{Dir: dir, Keep: keep, Replace: func(paths []string) error { asked = paths; return no }}
			if _, err := r.Checkout(t.Context(), tree, o); err != nil != (tt.asked != nil) || err != nil && err != no {
				t.Fatal(err)
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked for %q, want %q", asked, tt.asked)
			}
			if after := onDisk(t, dir); tt.asked != nil && !reflect.DeepEqual(before, after) {
				t.Errorf("changed before it asked:\n%v\n%v", before, after)
			}
			o.Replace = nil
			report, err := r.Checkout(t.Context(), tree, o)
			if err != nil || report.Replaced != len(tt.asked) {
				t.Fatal(report, err)
			}
			found := onDisk(t, dir)
			for _, e := range tree.Entries {
				if got := found[e.Path]; got.Hash != e.Hash || got.Kind != e.Kind || got.Mtime != e.Mtime || got.Target != e.Target {
					t.Errorf("%s: %+v", e.Path, got)
				}
			}
			for path := range tt.there {
				if strings.HasSuffix(path, "other") || strings.HasSuffix(path, "dir/b") {
					if _, ok := found[path]; !ok {
						t.Errorf("%s was deleted", path)
					}
				}
			}
			checkKept(t, keep, tt.kept)
		})
	}
}

func checkKept(t *testing.T, keep string, want map[string]string) {
	t.Helper()
	for path, text := range want {
		full := filepath.Join(keep, path)
		info, err := os.Lstat(full)
		if err != nil {
			t.Error(err)
			continue
		}
		var got string
		switch {
		case info.IsDir():
			got = "folder"
		case info.Mode().Type() == fs.ModeSymlink:
			target, _ := os.Readlink(full)
			got = "-> " + target
		default:
			data, _ := os.ReadFile(full)
			got = string(data)
		}
		if got != text {
			t.Errorf("kept %s: %q, want %q", path, got, text)
		}
	}
	if _, err := os.Stat(keep); len(want) == 0 && err == nil {
		t.Error("the folder for replaced files was made for nothing")
	}
}

func TestCheckoutLosesNoFolder(t *testing.T) {
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(fakeFile("file", "new"), fakeFile("other", "new")))
	dir := t.TempDir()
	put(t, dir, map[string]string{"file/x": "y"})
	_, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir})
	if replicate.KindOf(err) != replicate.Conflict || err.Error() != "check out file: a directory with files in it is in the way" {
		t.Errorf("%v", err)
	}
	if found := onDisk(t, dir); len(found) != 2 {
		t.Errorf("%v", found)
	}
}

// TestCheckoutSparesOtherNames: a file with several names is not changed under the others.
func TestCheckoutSparesOtherNames(t *testing.T) {
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(fakeFile("file", "content")))
	dir := t.TempDir()
	put(t, dir, map[string]string{"file": "content"})
	if err := os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "twin")); err != nil {
		t.Fatal(err)
	}
	before := onDisk(t, dir)["twin"]
	if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if after := onDisk(t, dir)["twin"]; !reflect.DeepEqual(before, after) {
		t.Errorf("%+v became %+v", before, after)
	}
}

// TestCheckoutStaysInside writes trees that no commit makes: a reader must not trust a tree.
func TestCheckoutStaysInside(t *testing.T) {
	b := newBuilder(t, diskStore(t))
	_, good := b.opened(b.tree(fakeFile("x", "evil")))
	evil := func(path string) Entry {
		e := good.Entries[0]
		e.Path = path
		return e
	}
	d := func(path string) Entry { return Entry{Path: path, Kind: Dir, Mode: 0o755} }
	l := func(path, target string) Entry { return Entry{Path: path, Kind: Link, Target: target} }
	tests := map[string][]Entry{
		"parent":                   {evil("../outside")},
		"parent in the middle":     {d("a"), evil("a/../../outside")},
		"absolute":                 {evil("/tmp/replicate-outside")},
		"nameless":                 {evil("")},
		"dot":                      {evil(".")},
		"folder that is a link":    {l("a", ".."), evil("a/outside")},
		"folder that is its link":  {d("a"), l("a", ".."), evil("a/outside")},
		"folder that is a file":    {evil("a"), evil("a/outside")},
		"folder that is not there": {evil("a/outside")},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "target")
			_, err := b.repo.Checkout(t.Context(), &Tree{Entries: entries}, CheckoutOptions{Dir: dir})
			if err == nil {
				t.Error("checked out")
			}
			for path, e := range onDisk(t, top) {
				inside := path == "target" || strings.HasPrefix(path, "target/")
				if !inside || strings.HasPrefix(filepath.Base(path), ".replicate-") {
					t.Errorf("%s: %+v", path, e)
				}
			}
		})
	}
}

// TestCheckoutThroughLinkThatIsThere: a link in the target that stands for a folder of the tree is replaced, not followed.
func TestCheckoutThroughLinkThatIsThere(t *testing.T) {
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(fakeDir("a"), fakeFile("a/x", "evil")))
	top := t.TempDir()
	dir := filepath.Join(top, "target")
	put(t, top, map[string]string{"outside/": "", "target/a -> ../outside": ""})
	if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	checkOnDisk(t, dir, tree.Entries)
	if found := onDisk(t, filepath.Join(top, "outside")); len(found) != 0 {
		t.Errorf("%v", found)
	}
}

// TestInterruptedCheckout cancels at every possible read: what is there is whole, and nothing else is.
func TestInterruptedCheckout(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(everyForm()...)
	_, tree := b.opened(row)
	for n := range 16 {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := Open(t.Context(), storagetest.Wrap(b.store, storagetest.Hooks{Before: func(_ context.Context, c storagetest.Call) error {
			if isPack(c.Key()) && c.N >= n {
				cancel()
			}
			return nil
		}}))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, err = r.Checkout(ctx, tree, CheckoutOptions{Dir: dir})
		cancel()
		found := onDisk(t, dir)
		for path, e := range found {
			want := tree.Lookup(path)
			if want == nil || want.Kind == File && want.Hash != e.Hash {
				t.Errorf("after %d reads: %q: %+v", n, path, e)
			}
		}
		if err == nil && len(found) != len(tree.Entries) {
			t.Errorf("after %d reads: no error, %d of %d files", n, len(found), len(tree.Entries))
		}
	}
}

func TestCheckoutWritesWhatIsWhole(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			row := b.tree(fakeFile("bad", string(noise(7, 100_000))), fakeFile("large and bad", string(noise(8, 1_000_000))), fakeFile("good", string(noise(9, 100_000))))
			r, tree := b.opened(row)
			key := packKey(row.Packs[0])
			data := bytes.Clone(b.get(key))
			data[tree.Lookup("bad").Extents[0].Off+50] ^= 1
			data[tree.Lookup("large and bad").Extents[2].Off+50] ^= 1
			b.put(key, data)
			dir := t.TempDir()
			report, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir})
			if replicate.KindOf(err) != replicate.Corrupt || !strings.Contains(err.Error(), "check out: 2 files could not be read, the others are there:\n  bad: 100001 bytes of pack ") {
				t.Error(err)
			}
			checkOnDisk(t, dir, []Entry{*tree.Lookup("good")})
			if report.Files != 1 {
				t.Errorf("%+v", report)
			}
		})
	}
}

func TestCheckoutOverReadOnly(t *testing.T) {
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(fakeDir("d"), fakeFile("d/f", "new")))
	dir := targetDir(t)
	put(t, dir, map[string]string{"d/f": "old", "d/g": "x"})
	for _, err := range []error{os.Chmod(filepath.Join(dir, "d/f"), 0), os.Chmod(filepath.Join(dir, "d"), 0o500)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir, Paths: []string{"d/f"}}); err != nil {
		t.Fatal(err)
	}
	if found := onDisk(t, dir); found["d"].Mode != 0o500 || found["d/f"].Hash != hashOf([]byte("new")) || found["d/g"].Size != 1 {
		t.Errorf("%+v", found)
	}
}
