package recorder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	"github.com/replicate/replicate"
)

// maxPatch is the largest diff that is kept. Larger ones are data or generated, and the commit's own tree has the files.
const maxPatch = 1 << 20

// unpatched are tracked files that a patch never shows; the snapshot leaves them out as well.
var unpatched = []string{":(exclude,glob)**/.env", ":(exclude,glob)**/.env.*", ":(exclude,glob)**/*.pem", ":(exclude,glob)**/*.key",
	":(exclude,glob)**/id_rsa", ":(exclude,glob)**/id_ed25519"}

// readGit describes the git work tree around dir, with the git program. It returns nil without an error where there is no
// work tree. What could be learnt before an error is returned with it.
func readGit(ctx context.Context, dir string) (*replicate.Git, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, nil
	}
	status, err := runGit(ctx, dir, maxPatch, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no")
	switch {
	case err != nil && strings.Contains(err.Error(), "not a git repository"):
		return nil, nil
	case err != nil && !errors.Is(err, errLong):
		return nil, err
	}
	g := parseStatus(status)
	if remote, err := runGit(ctx, dir, 4096, "ls-remote", "--get-url"); err == nil && len(remote) > 0 {
		if url := strings.TrimSpace(string(remote)); url != "origin" { // git repeats the name of a remote that is not there
			g.Remote = withoutCredentials(url)
		}
	}
	if !g.Dirty || g.Commit == "" {
		return g, nil
	}
	patch, err := runGit(ctx, dir, maxPatch, append([]string{"diff", "--no-color", "--no-ext-diff", "--no-textconv", "--binary", "HEAD", "--", ":/"}, unpatched...)...)
	switch {
	case errors.Is(err, errLong):
		return g, fmt.Errorf("the uncommitted changes are more than %d kB and were not kept as a patch", maxPatch>>10)
	case err != nil:
		return g, err
	}
	g.Patch = string(patch)
	return g, nil
}

var errLong = errors.New("too much output")

// runGit returns the output of one git command, or its first limit bytes and errLong.
func runGit(ctx context.Context, dir string, limit int64, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-C", dir}, args...)...)
	command.Env = append(command.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // filters that git starts die with it
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	var complaint bytes.Buffer
	command.Stderr = &complaint
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(stdout, limit+1))
	if int64(len(out)) > limit {
		cancel()
		_ = command.Wait() // killed by us
		return out[:limit], errLong
	}
	if waitErr := command.Wait(); err == nil {
		err = waitErr
	}
	switch first, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n"); {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("git %s took longer than %v", args[0], gitDeadline)
	case first != "":
		return nil, fmt.Errorf("git %s: %s", args[0], strings.TrimPrefix(first, "fatal: "))
	}
	return nil, fmt.Errorf("git %s: %w", args[0], err)
}

// parseStatus reads `git status --porcelain=v2 --branch -z`: headers "# name value", then one record per changed file; a
// rename has the old path behind it, as a record of its own.
func parseStatus(out []byte) *replicate.Git {
	g := &replicate.Git{}
	records := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 0; i < len(records); i++ {
		kind, rest, _ := strings.Cut(records[i], " ")
		switch kind {
		case "#":
			switch name, value, _ := strings.Cut(rest, " "); {
			case name == "branch.oid" && value != "(initial)":
				g.Commit = value
			case name == "branch.head" && value != "(detached)":
				g.Branch = value
			}
		case "1", "u":
			g.Files++
		case "2":
			g.Files++
			i++
		}
	}
	g.Dirty = g.Files > 0
	return g
}

var userinfo = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*://)([^/@]*)@`)

// withoutCredentials removes user and password of a URL. The user of ssh, which says nothing secret, stays.
func withoutCredentials(url string) string {
	m := userinfo.FindStringSubmatch(url)
	if m == nil {
		return url
	}
	rest := url[len(m[0]):]
	if user, _, _ := strings.Cut(m[2], ":"); strings.Contains(m[1], "ssh") {
		return m[1] + user + "@" + rest
	}
	return m[1] + rest
}
