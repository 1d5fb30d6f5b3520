package recorder

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// gitTree makes a work tree with two files and one commit, and returns a function that runs git in it.
func gitTree(t *testing.T) (dir string, git func(args ...string) string) {
	t.Helper()
	require.Program(t, "git")
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
		"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
	} {
		t.Setenv(name, value)
	}
	dir = t.TempDir()
	git = func(args ...string) string {
		t.Helper()
		out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	write(t, filepath.Join(dir, "train.py"), "print(1)\n")
	write(t, filepath.Join(dir, ".env"), "TOKEN=old\n")
	git("add", "-A", "-f")
	git("commit", "-q", "-m", "one")
	return dir, git
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestGitOfACleanTree(t *testing.T) {
	dir, git := gitTree(t)
	git("remote", "add", "origin", "https://me:secret@example.org/x.git")
	got, err := readGit(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Commit != git("rev-parse", "HEAD") || got.Branch != "main" || got.Dirty || got.Files != 0 || got.Patch != "" {
		t.Errorf("got %+v", got)
	}
	if got.Remote != "https://example.org/x.git" {
		t.Errorf("remote %q", got.Remote)
	}
}

func TestGitPatchApplies(t *testing.T) {
	dir, git := gitTree(t)
	write(t, filepath.Join(dir, "train.py"), "print(2)\n")
	write(t, filepath.Join(dir, "new.bin"), "\x00\x01\x02")
	git("add", "new.bin")
	write(t, filepath.Join(dir, ".env"), "TOKEN=new\n")
	write(t, filepath.Join(dir, "untracked"), "x")
	got, err := readGit(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Dirty || got.Files != 3 {
		t.Errorf("got dirty %v, %d files", got.Dirty, got.Files)
	}
	if strings.Contains(got.Patch, "TOKEN") {
		t.Error("the patch shows .env")
	}
	git("reset", "-q", "--hard")
	patch := filepath.Join(t.TempDir(), "patch")
	write(t, patch, got.Patch)
	git("apply", patch)
	for name, want := range map[string]string{"train.py": "print(2)\n", "new.bin": "\x00\x01\x02"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v", name, data, err)
		}
	}
}

func TestGitWithoutMuch(t *testing.T) {
	t.Run("no work tree", func(t *testing.T) {
		require.Program(t, "git")
		if got, err := readGit(t.Context(), t.TempDir()); got != nil || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("no git", func(t *testing.T) {
		dir, _ := gitTree(t)
		t.Setenv("PATH", t.TempDir())
		if got, err := readGit(t.Context(), dir); got != nil || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("no commit", func(t *testing.T) {
		dir, git := gitTree(t)
		git("checkout", "-q", "--orphan", "empty")
		got, err := readGit(t.Context(), dir)
		if err != nil || got.Commit != "" || got.Branch != "empty" {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("detached, renamed, in a subdirectory", func(t *testing.T) {
		dir, git := gitTree(t)
		git("checkout", "-q", "--detach")
		git("mv", "train.py", "a b.py")
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := readGit(t.Context(), filepath.Join(dir, "sub"))
		if err != nil || got.Branch != "" || got.Files != 1 || !strings.Contains(got.Patch, "a b.py") {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("a patch that is too large", func(t *testing.T) {
		dir, _ := gitTree(t)
		write(t, filepath.Join(dir, "train.py"), strings.Repeat("0123456789abcde\n", maxPatch/16))
		got, err := readGit(t.Context(), dir)
		if err == nil || got == nil || got.Patch != "" || !got.Dirty {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("somebody else's work tree", func(t *testing.T) {
		require.Root(t)
		dir, _ := gitTree(t)
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		got, err := readGit(t.Context(), dir)
		if err == nil || !strings.Contains(err.Error(), "dubious ownership") || got != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestWithoutCredentials(t *testing.T) {
	for in, want := range map[string]string{
		"https://me:pw@h/x":       "https://h/x",
		"https://token@h/x":       "https://h/x",
		"https://h/x@y":           "https://h/x@y",
		"ssh://git:pw@h/x":        "ssh://git@h/x",
		"git+ssh://git@h/x":       "git+ssh://git@h/x",
		"git@github.com:org/repo": "git@github.com:org/repo",
		"/some/path@home":         "/some/path@home",
		"file:///some/path":       "file:///some/path",
		"http://h:80/x":           "http://h:80/x",
	} {
		if got := withoutCredentials(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
