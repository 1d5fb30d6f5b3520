package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// project makes a directory with files, and returns inputs for it.
func project(t *testing.T, in Inputs, files map[string]string) Inputs {
	t.Helper()
	in.Root = t.TempDir()
	for name, content := range files {
		path := filepath.Join(in.Root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return in
}

func names(p *Plan) string {
	var list []string
	for _, s := range p.steps {
		list = append(list, s.name)
	}
	return strings.Join(list, ", ")
}

func TestBaseAndSteps(t *testing.T) {
	tests := []struct {
		name  string
		in    Inputs
		files map[string]string
		bases string
		steps string
	}{
		{"nothing", Inputs{}, nil, "python:3.12-slim", ""},
		{"python of this machine", Inputs{PythonHere: "3.9"}, nil, "python:3.9-slim", ""},
		{"python as written", Inputs{Python: "3.10", PythonHere: "3.9"}, nil, "python:3.10-slim", ""},
		{"python with a patch", Inputs{Python: "3.11.4"}, nil, "python:3.11.4-slim", ""},
		{"cuda", Inputs{CUDA: "12.4", PythonHere: "3.9"}, nil,
			"nvidia/cuda:12.4.1-devel-ubuntu22.04 nvidia/cuda:12.4.0-devel-ubuntu22.04", "python 3.9"},
		{"cuda with a patch", Inputs{CUDA: "11.8.0", Python: "3.11"}, nil, "nvidia/cuda:11.8.0-devel-ubuntu22.04", "python 3.11"},
		{"image", Inputs{Image: "mine:1", PythonHere: "3.9"}, nil, "mine:1", ""},
		{"image leaves a requirements.txt alone that nobody named", Inputs{Image: "mine:1"}, map[string]string{"requirements.txt": "torch\n"}, "mine:1", ""},
		{"image and named requirements", Inputs{Image: "mine:1", Requirements: "r.txt"}, map[string]string{"r.txt": "torch\n"}, "mine:1", "r.txt: 1 package"},
		{"everything in order", Inputs{Install: []string{"apt-get install -y\n  x", "make"}, InstallScript: "s.sh"},
			map[string]string{"requirements.txt": "a\nb\n", "s.sh": "true"},
			"python:3.12-slim", "install_script: s.sh, install: apt-get install -y x, install: make, requirements.txt: 2 packages"},
		{"requirements that are empty", Inputs{}, map[string]string{"requirements.txt": "# nothing\n\n"}, "python:3.12-slim", ""},
		{"uv.lock", Inputs{Around: Around{Export: func(string) ([]byte, error) { return []byte("a==1 \\\n    --hash=sha256:00\n"), nil }}}, map[string]string{"uv.lock": "x"},
			"python:3.12-slim", "uv.lock: 1 package"},
		{"requirements.txt beside uv.lock", Inputs{}, map[string]string{"uv.lock": "x", "requirements.txt": "a\n"}, "python:3.12-slim", "requirements.txt: 1 package"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(t.Context(), project(t, tt.in, tt.files))
			must(t, err)
			if got := strings.Join(p.Bases, " "); got != tt.bases {
				t.Errorf("bases %s, want %s", got, tt.bases)
			}
			if got := names(p); got != tt.steps {
				t.Errorf("steps %s, want %s", got, tt.steps)
			}
		})
	}
}

func TestInputsThatAreRefused(t *testing.T) {
	tests := []struct {
		name  string
		in    Inputs
		files map[string]string
		want  string
	}{
		{"image and python", Inputs{Image: "x", Python: "3.11"}, nil, "image and python exclude each other"},
		{"image and cuda", Inputs{Image: "x", CUDA: "12.4"}, nil, "image and cuda exclude each other"},
		{"python 2", Inputs{Python: "2.7"}, nil, `"2.7" is no version of Python 3`},
		{"python that leads elsewhere", Inputs{Python: "3.11-slim@sha256:0"}, nil, "is no version of Python 3"},
		{"cuda without minor", Inputs{CUDA: "12"}, nil, `"12" is no version of CUDA`},
		{"no script", Inputs{InstallScript: "s.sh"}, nil, "install_script: s.sh is not there"},
		{"no requirements", Inputs{Requirements: "r.txt"}, nil, "python_requirements: r.txt is not there"},
		{"uv.lock without uv", Inputs{}, map[string]string{"uv.lock": "x"}, "uv is not installed here"},
		{"uv that fails", Inputs{Around: Around{Export: func(string) ([]byte, error) {
			return nil, replicate.Errorf(replicate.Usage, "the lock is of another version")
		}}}, map[string]string{"uv.lock": "x"}, "the lock is of another version"},
		{"unset variable", Inputs{}, map[string]string{"requirements.txt": "x @ https://${TOKEN}@h/x.whl\n"}, "${TOKEN} is not set"},
		{"itself", Inputs{}, map[string]string{"requirements.txt": "a\n-r requirements.txt\n"}, "requirements.txt:2: requirements.txt includes itself"},
		{"in a circle", Inputs{}, map[string]string{"requirements.txt": "-r b/b.txt\n", "b/b.txt": "-r ../requirements.txt\n"}, "includes itself"},
		{"included file that is not there", Inputs{}, map[string]string{"requirements.txt": "a\n\n-r more.txt\n"}, "requirements.txt:3: include: more.txt is not there"},
		{"wheel that is not there", Inputs{}, map[string]string{"requirements.txt": "./x.whl\n"}, "./x.whl is not there"},
		{"directory outside", Inputs{}, map[string]string{"requirements.txt": "-e ..\n"}, ".. is outside of the project"},
		{"password with a space", Inputs{Around: Around{Indexes: []string{"https://u:a%20b@h/s"}}}, map[string]string{"requirements.txt": "a\n"}, "the password for h has characters"},
		{"requirements from elsewhere", Inputs{}, map[string]string{"requirements.txt": "-r https://u:s3cret@h/r.txt\n"}, "https://h/r.txt cannot be kept the same"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(t.Context(), project(t, tt.in, tt.files))
			if err == nil || !strings.Contains(err.Error(), tt.want) || replicate.KindOf(err) != replicate.Usage {
				t.Errorf("got %v (%s), want %s", err, replicate.KindOf(err), tt.want)
			}
		})
	}
}

func TestRequirements(t *testing.T) {
	tests := []struct {
		name  string
		text  string
		files map[string]string
		want  string // lines for pip
		count int
		local []Local
	}{
		{"comments and blanks", "# one\n\na==1  # two\r\n  b>=2 ;  python_version > '3' \nc # x\n", nil, "a==1\nb>=2 ; python_version > '3'\nc\n", 3, nil},
		{"a # in a URL", "a @ https://h/x#sha256=0\n", nil, "a @ https://h/x#sha256=0\n", 1, nil},
		{"joined lines", "a==1 \\\n  --hash=sha256:0 \\\n  --hash=sha256:1\nb\n", nil, "a==1 --hash=sha256:0 --hash=sha256:1\nb\n", 2, nil},
		{"included", "-r more.txt\n--requirement=sub/x.txt\nz\n", map[string]string{"more.txt": "a\n", "sub/x.txt": "-ry.txt\n", "sub/y.txt": "b\n"}, "a\nb\nz\n", 3, nil},
		{"constraints", "a\n-c c.txt\n", map[string]string{"c.txt": "a<2\n"}, "-c /replicate/step/constraints.txt\na\n", 1, nil},
		{"options", "--pre\n--no-binary=a\n-ihttps://h/s\na\n", nil, "--pre\n--no-binary=a\n--index-url https://h/s\na\n", 1, nil},
		{"directories", "-e ./lib[test]\n.\na\nmy @ file:lib\n", map[string]string{"lib/pyproject.toml": ""}, "a\n", 1,
			[]Local{{"lib", "[test]", true}, {".", "", false}, {"lib", "", false}}},
		{"directory of an included file", "-r lib/r.txt\n", map[string]string{"lib/r.txt": "-e .\n"}, "\n", 0, []Local{{"lib", "", true}}},
		{"from git", "-e git+https://h/x.git#egg=x\ngit+ssh://git@h/y.git\n", nil, "-e git+https://h/x.git#egg=x\ngit+ssh://git@h/y.git\n", 2, nil},
		{"wheel", "dist/x-1-py3-none-any.whl ; python_version > '3'\n", map[string]string{"dist/x-1-py3-none-any.whl": "wheel"},
			"/replicate/step/files/9e15d4a2af5e/x-1-py3-none-any.whl ; python_version > '3'\n", 1, nil},
		{"credentials", "--extra-index-url https://ann:s3cret@h:8080/simple\na @ https://tok3n@h2/a.whl\n", nil,
			"--extra-index-url https://h:8080/simple\na @ https://h2/a.whl\n", 1, nil},
		{"credentials with an @ and a percent", "--index-url https://a%40b:p@ss%@h/simple\n", nil, "--index-url https://h/simple\n", 0, nil},
		{"variables", "--extra-index-url https://${USER}:${PASSWORD}@h/simple\na\n", nil, "--extra-index-url https://${USER}:${PASSWORD}@h/simple\na\n", 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := project(t, Inputs{}, tt.files)
			r, err := parseRequirements(in.Root, "requirements.txt", []byte(tt.text))
			must(t, err)
			want := tt.want
			if strings.Contains(want, "/files/") {
				want = strings.Replace(want, "9e15d4a2af5e", digest([]byte("wheel"))[:12], 1)
			}
			if got := r.text(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if r.count != tt.count || !slices.Equal(r.local, tt.local) {
				t.Errorf("%d packages, local %+v", r.count, r.local)
			}
		})
	}
}

// FuzzRequirements parses anything. No text is lost into a secret that was none, and a password in a URL is never left.
func FuzzRequirements(f *testing.F) {
	f.Add("a==1 \\\n -r x\n-e .\n--index-url https://u:p@h/\n")
	f.Add("x @ file:///etc/passwd\n-f .\n-c\n")
	f.Add("jjjr x\n--inqex-url https://u:p@\n")
	f.Fuzz(func(t *testing.T, text string) {
		root := t.TempDir()
		r, err := parseRequirements(root, "requirements.txt", []byte(text))
		if err != nil {
			if _, ok := errors.AsType[*replicate.Error](err); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		for _, l := range r.local {
			if !filepath.IsLocal(l.Path) {
				t.Fatalf("%q leads out", l.Path)
			}
		}
		if strings.Contains(r.text(), "s://u:p@") {
			t.Fatalf("a password is left in %q", r.text())
		}
	})
}

func TestKeysChangeFromAnEditOn(t *testing.T) {
	base := docker.Image{ID: "sha256:1", Platform: "linux/amd64"}
	files := map[string]string{"requirements.txt": "a\n", "s.sh": "true"}
	in := Inputs{Install: []string{"one", "two"}, InstallScript: "s.sh"}
	keys := func(in Inputs, files map[string]string, base docker.Image) []string {
		p, err := New(t.Context(), project(t, in, files)) // each in another directory
		must(t, err)
		var list []string
		for _, l := range p.Keys(base) {
			list = append(list, l.Key)
		}
		return list
	}
	with := func(name, content string) map[string]string {
		return map[string]string{"requirements.txt": files["requirements.txt"], "s.sh": files["s.sh"], name: content}
	}
	before := keys(in, files, base)
	tests := []struct {
		name string
		got  []string
		same int // keys from the base up that stay
	}{
		{"nothing", keys(in, files, base), 4},
		{"comment in requirements", keys(in, with("requirements.txt", "# new\n\na   # x\n"), base), 4},
		{"requirement", keys(in, with("requirements.txt", "a==2\n"), base), 3},
		{"index", keys(Inputs{Install: in.Install, InstallScript: "s.sh", Around: Around{Indexes: []string{"https://h/s"}}}, files, base), 3},
		{"last install line", keys(Inputs{Install: []string{"one", "2"}, InstallScript: "s.sh"}, files, base), 2},
		{"order of install lines", keys(Inputs{Install: []string{"two", "one"}, InstallScript: "s.sh"}, files, base), 1},
		{"script", keys(in, with("s.sh", "false"), base), 0},
		{"base image", keys(in, files, docker.Image{ID: "sha256:2", Platform: "linux/amd64"}), 0},
		{"platform", keys(in, files, docker.Image{ID: "sha256:1", Platform: "linux/arm64"}), 0},
		{"name of the base", keys(Inputs{Image: "other", Requirements: "requirements.txt", Install: in.Install, InstallScript: "s.sh"}, files, base), 4},
	}
	for _, tt := range tests {
		same := 0
		for same < len(before) && tt.got[same] == before[same] {
			same++
		}
		if same != tt.same {
			t.Errorf("%s: %d of 4 keys stay, want %d", tt.name, same, tt.same)
		}
	}
	for _, k := range before {
		if len(k) != 20 {
			t.Errorf("key %q", k)
		}
	}
}

// TestSecretsAreInNoKeyAndNoFile compares plans that differ in credentials alone.
func TestSecretsAreInNoKeyAndNoFile(t *testing.T) {
	plan := func(password string) *Plan {
		p, err := New(t.Context(), project(t, Inputs{
			Around: Around{Indexes: []string{"https://ann:" + password + "@h/s"}, Lookup: func(string) (string, bool) { return password, true }},
		}, map[string]string{"requirements.txt": "a @ https://" + password + "@h2/a.whl\nb @ https://${TOKEN}@h3/b.whl\n"}))
		must(t, err)
		return p
	}
	one, two := plan("s3cret-1"), plan("s3cret-2")
	if one.Keys(docker.Image{})[0] != two.Keys(docker.Image{})[0] {
		t.Error("the password decides about the key")
	}
	for _, f := range one.steps[0].files {
		if strings.Contains(string(f.data), "s3cret") {
			t.Errorf("%s: %s", f.name, f.data)
		}
	}
	want := "machine h login ann password s3cret-1\nmachine h2 login s3cret-1 password x\n"
	if got := one.secrets[netrcVariable]; got != want || one.secrets["TOKEN"] != "s3cret-1" {
		t.Errorf("secrets %q", one.secrets)
	}
}

func TestDriverIsNewEnough(t *testing.T) {
	tests := []struct{ cuda, driver, want string }{
		{"12.4", "525.60", ""}, {"12.4", "525.60.13", ""}, {"12.4", "525.59.9", "525.60"}, {"12.4", "470.10", "525.60"}, {"12.4", "550", ""},
		{"13.0", "580.65.06", ""}, {"13.0", "575.1", "580.65"}, {"11.8.0", "450.80.02", ""}, {"11.8", "450.36", "450.80"},
		{"10.2", "440.33", ""}, {"10.2", "440.32", "440.33"}, {"10.1", "418.38", "418.39"}, {"10.0", "410.47", "410.48"}, {"9.2", "396.25", "396.26"},
		{"99.1", "1.0", ""}, {"12.4", "", ""}, {"", "1.0", ""},
	}
	for _, tt := range tests {
		err := (&Plan{cuda: tt.cuda}).CheckDriver(tt.driver)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("CUDA %s on %s: %v", tt.cuda, tt.driver, err)
		case tt.want != "" && (replicate.KindOf(err) != replicate.Usage || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.driver)):
			t.Errorf("CUDA %s on %s: %v, want %s", tt.cuda, tt.driver, err, tt.want)
		}
	}
}

func TestWheelsOfAnotherCUDAAreAWarning(t *testing.T) {
	tests := []struct {
		cuda, line string
		warn       bool
	}{
		{"12.4", "torch==2.3.0+cu118", true}, {"12.4", "torch==2.3.0+cu121", false}, {"11.8", "torch==2.3.0+cu121", true},
		{"12.4", "--extra-index-url https://download.pytorch.org/whl/cu118", true}, {"", "torch==2.3.0+cu118", false},
		{"9.2", "torch==1.0+cu92", false}, {"12.4", "torch", false}, {"12.4", "cupy-cuda118", false},
	}
	for _, tt := range tests {
		if got := mixedCUDA(tt.cuda, []string{"numpy", tt.line}); (got != "") != tt.warn {
			t.Errorf("CUDA %s and %s: %q", tt.cuda, tt.line, got)
		}
	}
}

// TestHighestLayerCounts: layers below one that is there may be gone.
func TestHighestLayerCounts(t *testing.T) {
	p, err := New(t.Context(), Inputs{Around: Around{Root: t.TempDir()}, Install: []string{"one", "two", "three"}})
	must(t, err)
	base := docker.Image{ID: "b"}
	layers := p.Keys(base)
	s := p.compare(base, []docker.Image{{ID: "other", Tags: []string{"replicate-env:0"}}, {ID: "two", Tags: []string{"x:1", docker.EnvImage(layers[1].Key)}}})
	if s.there != 2 || s.top.ID != "two" {
		t.Errorf("%d layers, the last is %s", s.there, s.top.ID)
	}
	if s = p.compare(base, nil); s.there != 0 || s.top.ID != "b" {
		t.Errorf("%d layers, the last is %s", s.there, s.top.ID)
	}
}
