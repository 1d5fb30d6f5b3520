package recorder

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// asPython is what importlib.metadata says: first on the path wins, compared by canonical name; and the distributions that the
// top-level modules came from.
const asPython = `
import importlib.metadata as m, json, os, re, sys
canonical = lambda n: re.sub(r"[-_.]+", "-", n).lower()
versions, owners = {}, {}
for entry in sys.path:
    for d in sorted(m.distributions(path=[entry]), key=lambda d: os.path.basename(str(d._path))):
        name = d.metadata["Name"]
        if not name or canonical(name) in {canonical(n) for n in versions}:
            continue
        versions[name] = d.version
        for top in (d.read_text("top_level.txt") or "").split():
            owners.setdefault(top, []).append(name)
print(json.dumps({"path": sys.path, "versions": versions, "owners": owners}))
`

func TestPackagesAgreeWithPython(t *testing.T) {
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		t.Run(strings.ReplaceAll(python, "/", "_"), func(t *testing.T) {
			require.Program(t, python)
			out, err := exec.Command(python, "-c", asPython).Output()
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				Path     []string
				Versions map[string]string
				Owners   map[string][]string
			}
			if err := json.Unmarshal(out, &want); err != nil {
				t.Fatal(err)
			}
			if len(want.Versions) == 0 {
				t.Fatal("python knows no packages at all")
			}
			got := library{packages: findPackages(t.Context(), want.Path)}
			versions := map[string]string{}
			for _, d := range got.packages {
				versions[d.name] = d.version
			}
			for name, version := range want.Versions {
				if versions[name] != version {
					t.Errorf("%s: got version %q, want %q", name, versions[name], version)
				}
				delete(versions, name)
			}
			for name := range versions {
				t.Errorf("%s is known to nobody else", name)
			}
			for module, names := range want.Owners {
				for _, name := range names {
					if !slices.Contains(got.imported([]string{module}), name) {
						t.Errorf("module %s: got %q, want %s among them", module, got.imported([]string{module}), name)
					}
				}
			}
		})
	}
}

// site writes a folder of sys.path.
func site(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPackages(t *testing.T) {
	first := site(t, map[string]string{
		"scikit_learn-1.2.dist-info/METADATA":     "Metadata-Version: 2.1\nName: scikit-learn\nVersion: 1.2\n\nVersion: 9\n",
		"scikit_learn-1.2.dist-info/RECORD":       "sklearn/__init__.py,sha256=x,1\nsklearn/a/b.py,,\nscikit_learn-1.2.dist-info/METADATA,,\n../../bin/x,,\n",
		"PyYAML-6.0.egg-info/PKG-INFO":            "Name: PyYAML\r\nVersion: 6.0\r\n",
		"PyYAML-6.0.egg-info/installed-files.txt": "../_yaml/__init__.py\n../yaml/__init__.py\nPKG-INFO\n",
		"old-0.1.egg-info":                        "Name: old\nVersion: 0.1\n",
		"six-1.16.dist-info/METADATA":             "Name: six\nVersion: 1.16\n",
		"six-1.16.dist-info/RECORD":               "six.py,sha256=x,1\n__pycache__/six.cpython-311.pyc,,\n",
		"ext-1.0.dist-info/METADATA":              "Name: ext\nVersion: 1.0\n",
		"ext-1.0.dist-info/RECORD":                "_ext.cpython-311-x86_64-linux-gnu.so,,\n",
		"mine-0.dist-info/METADATA":               "Name: mine\nVersion: 0\n",
		"mine-0.dist-info/direct_url.json":        `{"url":"https://h/mine","vcs_info":{"vcs":"git","commit_id":"4f2a9c1"}}`,
		"edit_able-3.dist-info/METADATA":          "Name: edit.able\nVersion: 3\n",
		"edit_able-3.dist-info/direct_url.json":   `{"url":"file:///src/edit","dir_info":{"editable":true}}`,
		"edit_able-3.dist-info/RECORD":            "__editable__.edit_able-3.pth,,\n__editable___edit_finder.py,,\n",
		"broken-1.dist-info/RECORD":               "broken.py,,\n",
		"nameless-1.dist-info/METADATA":           "Version: 1\n",
		"egg-2.egg/EGG-INFO/PKG-INFO":             "Name: never seen: its egg is not on the path\nVersion: 2\n",
	})
	second := site(t, map[string]string{
		"scikit_learn-0.9.dist-info/METADATA": "Name: Scikit.Learn\nVersion: 0.9\n",
		"x.egg/EGG-INFO/PKG-INFO":             "Name: x\nVersion: 2\n",
	})
	l := library{packages: findPackages(t.Context(), []string{first, second, filepath.Join(second, "x.egg"), "/no/such/path", filepath.Join(first, "old-0.1.egg-info"), ""})}
	want := map[string]string{
		"scikit-learn": "1.2", "PyYAML": "6.0", "old": "0.1", "six": "1.16", "ext": "1.0", "mine": "0 @ 4f2a9c1", "edit.able": "3", "x": "2",
	}
	got := l.versions()
	for name, version := range want {
		if got[name] != version {
			t.Errorf("%s: got %q, want %q", name, got[name], version)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	imported := l.imported([]string{"sklearn", "yaml", "six", "_ext", "edit_able", "os.path", "json"})
	if want := []string{"PyYAML", "edit.able", "ext", "scikit-learn", "six"}; !slices.Equal(imported, want) {
		t.Errorf("imported: got %q, want %q", imported, want)
	}
}
