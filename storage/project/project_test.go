package project

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
)

// tree makes files, by path and content, and folders, by a path with "/" at its end, and returns where.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		full := filepath.Join(root, path)
		dir := filepath.Dir(full)
		if path[len(path)-1] == '/' {
			dir = full
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == full {
			continue
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFindRoot(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  map[string]string
		dir    string
		root   string
		config string
	}{
		{"nothing", map[string]string{"a/b/": ""}, "a/b", "a/b", ""},
		{"here", map[string]string{"a/replicate.yaml": ""}, "a", "a", "a/replicate.yaml"},
		{"above", map[string]string{"a/replicate.yaml": "", "a/b/c/": ""}, "a/b/c", "a", "a/replicate.yaml"},
		{"yml", map[string]string{"a/replicate.yml": "", "a/b/c/": ""}, "a/b/c", "a", "a/replicate.yml"},
		{"nearest", map[string]string{"replicate.yaml": "", "a/replicate.yml": "", "a/b/": ""}, "a/b", "a", "a/replicate.yml"},
		{"storage", map[string]string{"a/.replicate/storage/": "", "a/b/": ""}, "a/b", "a", ""},
		{"nearest storage", map[string]string{".replicate/storage/": "", "a/.replicate/storage/": "", "a/b/": ""}, "a/b", "a", ""},
		{"file wins over nearer storage", map[string]string{"replicate.yaml": "", "a/.replicate/storage/": ""}, "a", ".", "replicate.yaml"},
		{"directory of that name", map[string]string{"a/replicate.yaml/": ""}, "a", "a", ""},
		{"file of that name", map[string]string{"a/.replicate/storage": "", "a/b/": ""}, "a/b", "a/b", ""},
		{"home's storage is not everybody's", map[string]string{"home/.replicate/storage/": "", "home/a/": ""}, "home/a", "home/a", ""},
		{"home's file is", map[string]string{"home/replicate.yaml": "", "home/a/": ""}, "home/a", "home", "home/replicate.yaml"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := tree(t, tt.files)
			p, err := Find(filepath.Join(top, tt.dir), Options{Home: filepath.Join(top, "home")})
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(top, tt.root); p.Root != want {
				t.Errorf("root = %s, want %s", p.Root, want)
			}
			want := ""
			if tt.config != "" {
				want = filepath.Join(top, tt.config)
			}
			if p.ConfigFile != want {
				t.Errorf("config file = %s, want %s", p.ConfigFile, want)
			}
		})
	}
}

func TestStorageURL(t *testing.T) {
	for _, tt := range []struct {
		name, config, flag, env string
		want                    string // with TOP for the directory that holds project and cwd
	}{
		{"default", "", "", "", "file://TOP/project/.replicate/storage"},
		{"relative to the file", "storage: ../data", "", "", "file://TOP/data"},
		{"absolute", "storage: /data/x/", "", "", "file:///data/x"},
		{"home", "storage: ~/x", "", "", "file://TOP/home/x"},
		{"url", "storage: s3://hooli/iris", "", "", "s3://hooli/iris"},
		{"file url", "storage: file:///data", "", "", "file:///data"},
		{"variable wins over file", "storage: s3://a", "", "gs://b", "gs://b"},
		{"flag wins over both", "storage: s3://a", "s3://c", "gs://b", "s3://c"},
		{"relative flag", "storage: s3://a", "x/y", "", "file://TOP/cwd/x/y"},
		{"relative variable", "", "", "./x", "file://TOP/cwd/x"},
		{"strange letters", "storage: 'a b#c?d%e'", "", "", "file://TOP/project/a%20b%23c%3Fd%25e"},
		{"colon", "storage: ./s3:x", "", "", "file://TOP/project/s3:x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := tree(t, map[string]string{"project/replicate.yaml": tt.config, "cwd/": "", "home/": ""})
			p, err := Find(filepath.Join(top, "project"), Options{
				StorageFlag: tt.flag, StorageEnv: tt.env, WorkingDir: filepath.Join(top, "cwd"), Home: filepath.Join(top, "home"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := replaceTop(tt.want, top); p.StorageURL != want {
				t.Errorf("storage = %s, want %s", p.StorageURL, want)
			}
		})
	}
}

func replaceTop(url, top string) string {
	if len(url) > 10 && url[:10] == "file://TOP" {
		return "file://" + top + url[10:]
	}
	return url
}

func TestStorageURLOpens(t *testing.T) {
	top := tree(t, map[string]string{"ä b/c%d/": ""})
	p, err := Find(filepath.Join(top, "ä b/c%d"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(t.Context(), p.StorageURL)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.(*disk.Store).Dir(), filepath.Join(top, "ä b/c%d/.replicate/storage"); got != want {
		t.Errorf("dir = %s, want %s", got, want)
	}
}

func TestNotSaved(t *testing.T) {
	top := tree(t, map[string]string{"home/a/": "", "other/": ""})
	home := filepath.Join(top, "home")
	link := filepath.Join(top, "link")
	if err := os.Symlink(home, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, home, want string }{
		{home, home, "it is the home directory"},
		{link, home, "it is the home directory"},
		{home, link + "/", "it is the home directory"},
		{"/", home, "it is the root of the file system"},
		{filepath.Join(home, "a"), home, ""},
		{filepath.Join(top, "other"), home, ""},
		{home, "", ""},
		{home, filepath.Join(top, "missing"), ""},
	} {
		p, err := Find(tt.dir, Options{Home: tt.home})
		if err != nil || p.NotSaved != tt.want {
			t.Errorf("%s with home %s: %q, %v; want %q", tt.dir, tt.home, p.NotSaved, err, tt.want)
		}
	}
}

func TestFolders(t *testing.T) {
	top := tree(t, map[string]string{"replicate.yaml": "python: 3.10"})
	p, err := Find(top, Options{UserCache: "/home/dev/.cache"})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		p.Private():         top + "/.replicate",
		p.Spool():           top + "/.replicate/spool",
		p.Cache("0123abcd"): "/home/dev/.cache/replicate/0123abcd",
		p.Config.Python:     "3.10",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestFindErrors(t *testing.T) {
	top := tree(t, map[string]string{
		"bad/replicate.yaml": "storage: x\nmetric: []", "bad/sub/": "", "both/replicate.yaml": "", "both/replicate.yml": "", "file": "",
		"almost/replicate.yaml": "storage: s3:/hooli",
	})
	for _, tt := range []struct {
		name, dir, cwd string
		err, hint      string
		kind           replicate.Kind
	}{
		{"below the working directory", "bad", "", `bad/replicate.yaml:2: unknown key "metric"`, `did you mean "metrics"?`, replicate.Usage},
		{"in the working directory", ".", "bad", `replicate.yaml:2: unknown key "metric"`, `did you mean "metrics"?`, replicate.Usage},
		{"above the working directory", ".", "bad/sub", top + `/bad/replicate.yaml:2: unknown key "metric"`, `did you mean "metrics"?`,
			replicate.Usage},
		{"both names", "both", "", top + "/both holds both replicate.yaml and replicate.yml", "remove one of them", replicate.Usage},
		{"a file", "file", "", top + "/file is not a directory", "", replicate.Usage},
		{"nothing", "none", "", "open directory " + top + "/none: no such file or directory", "", replicate.NotFound},
		{"almost a URL", "almost", "", top + `/almost/replicate.yaml: storage "s3:/hooli" is neither a URL nor a path`,
			"write s3://hooli, or ./s3:/hooli for a folder", replicate.Usage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Find(tt.dir, Options{WorkingDir: filepath.Join(top, tt.cwd)})
			if err == nil || err.Error() != tt.err || replicate.HintOf(err) != tt.hint || replicate.KindOf(err) != tt.kind {
				t.Errorf("got  %v (%s, hint %q)\nwant %s (%s, hint %q)", err, replicate.KindOf(err), replicate.HintOf(err), tt.err, tt.kind, tt.hint)
			}
		})
	}
	if _, err := Find("none", Options{WorkingDir: top}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
