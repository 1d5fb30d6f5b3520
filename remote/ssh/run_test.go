package ssh

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

func TestScriptsRun(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	for _, tt := range []struct {
		name, script, out string
		status            int
		stderr            string
	}{
		{"output", "echo hello; printf world", "hello\nworld", 0, ""},
		{"status", "echo hello; echo oops >&2; exit 3", "hello\n", 3, "oops"},
		{"empty", "", "", 0, ""},
		{"empty stdin", "cat; echo done", "done\n", 0, ""},
		{"signal", "echo hello; kill -9 $$", "hello\n", 137, ""},
		{"syntax", "echo (", "", 2, `/bin/sh: 1: eval: Syntax error: end of file unexpected (expecting ")")`},
		{"syntax of lines", "echo hello\necho (", "", 2, `/bin/sh: 5: Syntax error: newline unexpected (expecting ")")`},
		{"lines", "echo hello\ncat # comment\nexit 3", "hello\n", 3, ""},
		{"what login shells do not agree on", `printf '%s\n' "it's !1 \$HOME"`, "it's !1 $HOME\n", 0, ""},
		{"quotes", `x="a  'b'"; echo "$x" # comment`, "a  'b'\n", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := c.Run(t.Context(), tt.script)
			exit, _ := errors.AsType[*ExitError](err)
			if exit == nil {
				exit = &ExitError{}
			}
			if string(out) != tt.out || exit.Status != tt.status || exit.Stderr != tt.stderr || (err == nil) != (tt.status == 0) {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
	if n := strings.Count(s.logged(), "Connection from"); n != 1 {
		t.Errorf("sshd counts %d connections:\n%s", n, s.logged())
	}
}

func TestCommandsAreConnections(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	p, err := c.Stdio(t.Context(), "sh", "-c", `cat; echo "it's $1"; echo why >&2; exit 4`, "sh", `$HOME "x" 'y'`)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(p, "hello")
	p.(interface{ CloseWrite() error }).CloseWrite()
	out, err := io.ReadAll(p)
	exit, ok := errors.AsType[*ExitError](err)
	if string(out) != "hello\nit's $HOME \"x\" 'y'\n" || !ok || exit.Status != 4 || exit.Stderr != "why" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestMissingCommandIsNotFound(t *testing.T) {
	s := startSSHD(t)
	_, err := s.dial("box", s.options()).Stdio(t.Context(), "no such command", "x")
	wantError(t, err, replicate.NotFound, "start a shell on box: no such command: not found", "")
}

// noisy is a login shell whose start files print, are slow to, and do not end their last line.
const noisy = `ForceCommand /bin/sh -c 'echo Welcome; echo "fortune: replicate-" >&2; printf "last login: never"; exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'`

func TestNoiseOfLoginShellIsLeftOut(t *testing.T) {
	s := startSSHD(t, noisy)
	c := s.dial("box", s.options())
	if out, err := c.Run(t.Context(), "echo hello"); string(out) != "hello\n" || err != nil {
		t.Errorf("a script printed %q, %v", out, err)
	}
	p, err := c.Stdio(t.Context(), "echo", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(p); string(out) != "hello\n" || err != nil {
		t.Errorf("a command printed %q, %v", out, err)
	}
}

func TestForcedCommandIsNamed(t *testing.T) {
	s := startSSHD(t, `ForceCommand echo "This account is for backups only."`)
	_, err := s.dial("box", s.options()).Run(t.Context(), "echo hello")
	wantError(t, err, replicate.Permission, `start a shell on box: the host runs something else in its place, which says "This account is for backups only."`,
		"the account may have no shell, or one command that is forced on it (ForceCommand, command= in authorized_keys)")
}

func TestShellThatPrintsWithoutEndIsGivenUp(t *testing.T) {
	s := startSSHD(t, `ForceCommand yes`)
	_, err := s.dial("box", s.options()).Run(t.Context(), "echo hello")
	wantError(t, err, replicate.Unavailable, "start a shell on box: the login shell prints without end", "")
}

func TestOneSessionAfterAnother(t *testing.T) {
	s := startSSHD(t, "MaxSessions 1")
	c := s.dial("box", s.options())
	for range 10 {
		if _, err := c.Run(t.Context(), "echo hello"); err != nil {
			t.Fatal(err)
		}
	}
	p, err := c.Stdio(t.Context(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Run(t.Context(), "echo hello")
	wantError(t, err, replicate.Unavailable, `start a shell on box: the host refused the channel (rejected: connect failed ("open failed"))`,
		"the host may allow too few sessions on a connection (MaxSessions in its sshd_config)")
	p.Close()
}

// wantError compares an error with what a person must see of it.
func wantError(t *testing.T, err error, kind replicate.Kind, text, hint string) {
	t.Helper()
	if err == nil {
		t.Fatalf("there is no error, want %q", text)
	}
	if got := replicate.KindOf(err); got != kind {
		t.Errorf("the kind is %q, want %q", got, kind)
	}
	if err.Error() != text {
		t.Errorf("the error is\n%s\nwant\n%s", err, text)
	}
	if got := replicate.HintOf(err); got != hint {
		t.Errorf("the hint is\n%s\nwant\n%s", got, hint)
	}
}
