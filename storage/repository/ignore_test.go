package repository

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// writeFiles makes files below dir, with their directories, from pairs of path and content; a path with "/" at the end is a directory.
func writeFiles(t testing.TB, dir string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		path := dir + "/" + pairs[i]
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(pairs[i], "/") {
			continue
		}
		if err := os.WriteFile(path, []byte(pairs[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// walked returns what a walk finds, directories with "/" at the end, and what it leaves out as "path (why)".
func walked(t testing.TB, root string, yaml []string, paths ...string) (list, out []string) {
	t.Helper()
	if len(paths) == 0 {
		paths = []string{""}
	}
	w := &walker{root: root, ignore: yaml}
	found, left, err := w.walk(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.kind == Dir {
			f.path += "/"
		}
		list = append(list, f.path)
	}
	for _, l := range left {
		out = append(out, l.Path+" ("+l.Why+")")
	}
	return list, out
}

func equalTexts(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func TestIgnoreLayers(t *testing.T) {
	tests := []struct {
		name  string
		files []string // path, content
		yaml  []string
		paths []string
		want  []string // files only
		out   []string
	}{
		{name: "gitignore", files: []string{".gitignore", "# c\n\n*.log\r\n/data/\n", "a.log", "", "data/x", "", "s/a.log", "", "s/data/x", ""},
			want: []string{".gitignore", "s/data/x"},
			out:  []string{"a.log (.gitignore:3)", "data/ (.gitignore:4)", "s/a.log (.gitignore:3)"}},
		{name: "nested", files: []string{".gitignore", "*.a\n*.b\n", "s/.gitignore", "!*.a\nonly\n/top\n", "s/x.a", "", "s/x.b", "", "only", "", "s/d/only", "",
			"s/top", "", "s/d/top", ""},
			want: []string{".gitignore", "only", "s/.gitignore", "s/d/top", "s/x.a"},
			out:  []string{"s/d/only (s/.gitignore:2)", "s/top (s/.gitignore:3)", "s/x.b (.gitignore:2)"}},
		{name: "replicateignore goes first", files: []string{".gitignore", "*.pt\n", ".replicateignore", "!w/*.pt\n.git*\n", "w/a.pt", "", "b.pt", ""},
			want: []string{".replicateignore", "w/a.pt"}, out: []string{".gitignore (.replicateignore:2)", "b.pt (.gitignore:1)"}},
		{name: "replicate.yaml comes after replicateignore", files: []string{".replicateignore", "*.tmp\n!x.new\n", "keep.tmp", "", "a.tmp", "", "x.new", ""},
			yaml: []string{"!keep.tmp", "*.new"}, want: []string{".replicateignore", "keep.tmp"},
			out: []string{"a.tmp (.replicateignore:1)", "x.new (replicate.yaml: *.new)"}},
		{name: "secrets", files: []string{".env", "", ".env.local", "", ".env.example", "", "id_rsa", "", "id_rsa.pub", "", "k.pem", "", ".aws/credentials", "",
			"tokenizer.json", "", "key_dim.py", ""},
			want: []string{".env.example", "id_rsa.pub", "key_dim.py", "tokenizer.json"},
			out:  []string{".aws/ (secret)", ".env (secret)", ".env.local (secret)", "id_rsa (secret)", "k.pem (secret)"}},
		{name: "gitignore cannot let a secret in", files: []string{".gitignore", "*\n!.gitignore\n!.env\n!a\n", ".env", "", "a", ""},
			want: []string{".gitignore", "a"}, out: []string{".env (secret)"}},
		{name: "replicateignore can", files: []string{".replicateignore", "!.env\n!env/\n", ".env", "", "env/pyvenv.cfg", ""},
			want: []string{".env", ".replicateignore", "env/pyvenv.cfg"}},
		{name: "machinery", files: []string{".git/HEAD", "", ".replicate/storage/x", "", "s/.git", "gitdir: x", "s/a", ""}, want: []string{"s/a"}},
		{name: "virtual environment and caches", files: []string{"my env/pyvenv.cfg", "", "my env/lib/x", "", "__pycache__/a.pyc", "", "a.pyc", "", "a.py", ""},
			want: []string{"a.py"}, out: []string{"__pycache__/ (cache)", "a.pyc (cache)", "my env/ (virtual environment)"}},
		{name: "an idiom of git", files: []string{".gitignore", "d/**\n!d/*/\n!d/**/*.py\n", "d/x", "", "d/s/x", "", "d/s/a.py", "", "d/b.py", ""},
			want: []string{".gitignore", "d/b.py", "d/s/a.py"}, out: []string{"d/s/x (.gitignore:1)", "d/x (.gitignore:1)"}},
		{name: "named paths beat gitignore alone", files: []string{".gitignore", "w/\n*.pt\n", ".replicateignore", "*.tmp\n", "w/a.pt", "", "w/b.tmp", "", "w/.env", "",
			"v/a.pt", "", "c.pt", "", "d", ""}, paths: []string{"w", "v", "c.pt", "gone"},
			want: []string{"c.pt", "w/a.pt"}, out: []string{"gone (not there)", "v/a.pt (.gitignore:2)", "w/.env (secret)", "w/b.tmp (.replicateignore:1)"}},
		{name: "a named file in a named directory", files: []string{"a/b/c", "", "a/d", "", "e", ""}, paths: []string{"a/b/c", "a/b", "a/b/c"}, want: []string{"a/b/c"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			writeFiles(t, root, tt.files...)
			list, out := walked(t, root, tt.yaml, tt.paths...)
			list = slices.DeleteFunc(list, func(s string) bool { return strings.HasSuffix(s, "/") })
			equalTexts(t, "saved", list, tt.want)
			equalTexts(t, "left out", out, tt.out)
		})
	}
}

// TestIgnoreAgreesWithGit compares random patterns on random trees with what git itself ignores.
func TestIgnoreAgreesWithGit(t *testing.T) {
	require.Program(t, "git")
	const seed, rounds = 1, 20
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	name := func() string { return pick("a", "b", "a.x", "b.x", "ab", "a b", ".x", "x.a.x", "é") }
	glob := func() string {
		return pick(name(), name(), "*", "*.x", "a*", "?", "[ab]", "[!a]*", "**", "*.x.*", `\a`, "a*x", "b\\ ", "*é")
	}
	for round := range rounds {
		root := t.TempDir()
		for range 40 {
			path := name()
			for range r.IntN(4) {
				path += "/" + name()
			}
			if os.MkdirAll(filepath.Dir(root+"/"+path), 0o755) == nil {
				os.WriteFile(root+"/"+path, nil, 0o644) // fails where a directory stands
			}
		}
		dirs, _ := filepath.Glob(root + "/*/")
		for _, dir := range append(dirs, root, root) {
			var text string
			for range 1 + r.IntN(5) {
				line := pick("", "", "!") + pick("", "", "/", "**/") + glob()
				for range r.IntN(3) {
					line += "/" + glob()
				}
				text += line + pick("", "", "/", " ", "/**") + "\n"
			}
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				writeFiles(t, dir, ".gitignore", text)
			}
		}
		got, _ := walked(t, root, nil)
		got = slices.DeleteFunc(got, func(s string) bool { return strings.HasSuffix(s, "/") })
		want := gitFiles(t, root)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			rules, _ := exec.Command("grep", "-rn", "", "--include=.gitignore", root).Output()
			t.Fatalf("round %d of seed %d:\n got %q\nwant %q\n%s", round, seed, got, want, rules)
		}
	}
}

func gitFiles(t *testing.T, root string) []string {
	t.Helper()
	run := func(args ...string) []byte {
		c := exec.Command("git", append([]string{"-C", root, "-c", "core.excludesFile=/dev/null"}, args...)...)
		c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return out
	}
	run("init", "-q")
	defer os.RemoveAll(root + "/.git")
	text := bytes.TrimSuffix(run("ls-files", "-z", "-o", "--exclude-standard"), []byte{0})
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == 0 })
}

func FuzzPatterns(f *testing.F) {
	f.Add("*.log\n!a\n/b/\n", "a/b.log", false)
	f.Add("a/**/[b\\]c]\n\\!x \n", "a/b", true)
	f.Fuzz(func(t *testing.T, text, path string, isDir bool) {
		p := parsePatterns(gitIgnoreName, []byte(text))
		if v := p.match(path, path[strings.LastIndexByte(path, '/')+1:], isDir); v.out && !v.decided {
			t.Fatal("left out without a decision")
		}
	})
}

func BenchmarkIgnore20000Files(b *testing.B) {
	var lines string
	for i := range 150 {
		lines += fmt.Sprintf("name%d\n*.ext%d\n", i, i)
	}
	lines += "*.py[cod]\n*$py.class\n.coverage.*\ndocs/_build/\n/site\nlib/**/tmp\n*.py,cover\n*.so.[0-9]*\n"
	rules := &ruleChain{git: parsePatterns(gitIgnoreName, []byte(lines)), replicate: parsePatterns(replicateIgnoreName, []byte("*.tmp\n!keep.tmp\n"))}
	for b.Loop() {
		for i := range 20_000 {
			name := fmt.Sprintf("image-%05d.jpeg", i)
			if v := rules.decide("data/train/"+name, name, false); v.out {
				b.Fatal(v)
			}
		}
	}
}
