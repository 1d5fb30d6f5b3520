package docker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

func TestExecCarriesStreamsAndCode(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	run(t, e, c)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for _, tt := range []struct {
		name          string
		exec          docker.Exec
		out, complain string
		code          int
	}{
		{"output", docker.Exec{Argv: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}}, "out\n", "err\n", 7},
		{"input to its end", docker.Exec{Argv: []string{"cat"}, Stdin: strings.NewReader(big)}, big, "", 0},
		{"input nobody reads", docker.Exec{Argv: []string{"true"}, Stdin: strings.NewReader(big)}, "", "", 0},
		{"no input", docker.Exec{Argv: []string{"cat"}}, "", "", 0},
		{"environment and directory", docker.Exec{Argv: []string{"sh", "-c", "echo $A; pwd"}, Env: []string{"A=b c"}, Dir: "/usr"}, "b c\n/usr\n", "", 0},
		{"user", docker.Exec{Argv: []string{"id", "-u"}, User: "65534"}, "65534\n", "", 0},
		{"killed", docker.Exec{Argv: []string{"sh", "-c", "kill -9 $$"}}, "", "", 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, complain bytes.Buffer
			tt.exec.Stdout, tt.exec.Stderr = &out, &complain
			code, err := e.Exec(t.Context(), c.Name, tt.exec)
			if err != nil || code != tt.code || out.String() != tt.out || complain.String() != tt.complain {
				t.Errorf("code %d, %v, %d bytes out, err %q", code, err, out.Len(), complain.String())
			}
		})
	}
	if code, err := e.Exec(t.Context(), c.Name, docker.Exec{Argv: []string{"no-such-program"}}); err != nil || code != 126 && code != 127 {
		t.Errorf("a program that does not exist: code %d, %v", code, err)
	}
	broken := docker.Exec{Argv: []string{"echo", "hi"}, Stdout: brokenWriter{}}
	if _, err := e.Exec(t.Context(), c.Name, broken); !strings.Contains(fmt.Sprint(err), "the writer failed") {
		t.Errorf("a writer's error became %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the writer failed") }

func TestExecNeedsARunningContainer(t *testing.T) {
	e := engine(t)
	c := named(t, "true")
	create(t, e, c)
	_, err := e.Exec(t.Context(), c.Name, docker.Exec{Argv: []string{"true"}})
	wants(t, err, replicate.Conflict, "not running")
	_, err = e.Exec(t.Context(), "no-such", docker.Exec{Argv: []string{"true"}})
	wants(t, err, replicate.NotFound, "no such container on the host")
	_, err = e.Attach(t.Context(), "no-such")
	wants(t, err, replicate.NotFound, "no such container on the host")
}

func TestCancelEndsAnExec(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	run(t, e, c)
	ctx, cancel := context.WithCancel(t.Context())
	started := writer(func([]byte) { cancel() })
	_, err := e.Exec(ctx, c.Name, docker.Exec{Argv: []string{"sh", "-c", "echo hi; sleep 1000"}, Stdout: started})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
