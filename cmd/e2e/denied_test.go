package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// wronged returns a machine that uses a bucket as a user who may do everything, and one that uses it as its owner.
func wronged(t *testing.T, s *servers.Server) (l, owner *lab, url string) {
	t.Helper()
	url = storagetest.Prefix(s.URL)
	l, owner = machine(t, url, s.UserEnv()), machine(t, url, s.Env())
	l.setenv("REPLICATE_EXIT_WAIT", "0.1")
	l.must(errors.Join(s.AddUser(), s.Allow()))
	t.Cleanup(func() { _ = s.RemoveUser() })
	return l, owner, url
}

// goesOnWithout waits until the owner sees commits of a training, takes something away from the user, and sees the training commit on.
func (tr *training) goesOnWithout(owner *lab, take func() error) {
	tr.l.t.Helper()
	tr.l.awaits(tr, 1)
	owner.within(time.Minute, "commits are listed", func() bool {
		list := owner.list()
		return len(list) == 1 && list[0].NumCommits > 0
	})
	tr.l.must(take())
	_, before := tr.progress()
	tr.l.awaits(tr, before+3)
}

// TestDenied takes a permission away in the middle of a training: that goes on, whoever asks is told what is missing, and when it is given back
// nothing is lost.
func TestDenied(t *testing.T) {
	s := storagetest.StartVersity(t)
	const hint = "the user or role that aws sts get-caller-identity shows"
	for _, tt := range []struct {
		action  string
		command string // that tells when the training has ended
		code    int
		err     string
	}{
		{"s3:PutObject", "upload", 1, "permission denied: s3:PutObject on arn:aws:s3:::replicate-test/"},
		{"s3:ListBucket", "ls", 1, "permission denied: s3:ListBucket on arn:aws:s3:::replicate-test"},
		{"s3:GetObject", "ls", 1, "permission denied: s3:GetObject on arn:aws:s3:::replicate-test/"},
		{"s3:DeleteObject", "upload", 0, "/live/ID: permission denied: s3:DeleteObject on arn:aws:s3:::replicate-test/"},
	} {
		t.Run(tt.action, func(t *testing.T) {
			l, owner, url := wronged(t, s)
			tr := l.train("1000000")
			tr.goesOnWithout(owner, func() error { return s.Allow(tt.action) })
			tr.stdin.Close()
			if stderr, err := tr.wait(); err != nil || !tr.done {
				t.Errorf("the training did not end well: %v\n%s", err, stderr)
			}
			out, stderr, code := l.try(binary, tt.command)
			if want := strings.ReplaceAll(tt.err, "ID", tr.id); code != tt.code || out != "" || !strings.Contains(stderr, want) || code != 0 && !strings.Contains(stderr, hint) {
				t.Errorf("%s: exit code %d\n%s%s", tt.command, code, out, stderr)
			}
			l.must(s.Allow())
			l.uploads()
			owner.verify(tr, "recorder", time.Now())
			owner.check(url)
		})
	}
}

// TestCredentialsComeBack makes the keys of a training invalid for a while. The same uploader goes on when they are valid again.
func TestCredentialsComeBack(t *testing.T) {
	s := storagetest.StartVersity(t)
	l, owner, url := wronged(t, s)
	tr := l.train("1000000")
	tr.goesOnWithout(owner, s.RemoveUser)
	l.within(time.Minute, "the uploader says why", func() bool { // S3 tells some requests only that they are denied
		status := l.replicate("upload", "--status")
		return strings.Contains(status, "tried again: ") && (strings.Contains(status, "does not know this access key") || strings.Contains(status, "permission denied"))
	})
	uploader := l.uploader()
	l.must(s.AddUser())
	_, acks := tr.progress()
	owner.within(2*time.Minute, "the commits of before are listed", func() bool { return owner.list()[0].NumCommits >= acks })
	if now := l.uploader(); now != uploader || now == 0 {
		t.Errorf("uploader %d became %d", uploader, now)
	}
	tr.stdin.Close()
	if stderr, err := tr.wait(); err != nil || !tr.done {
		t.Errorf("the training did not end well: %v\n%s", err, stderr)
	}
	l.uploads()
	owner.verify(tr, "recorder", time.Now())
	owner.check(url)
}
