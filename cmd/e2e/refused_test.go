package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/badnet"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// TestRefusedInMidTraining has a storage say in the middle of a training that the credentials have expired, that the clock is wrong, that the
// quota is used up, that its bucket is gone, or that something is not allowed. The training goes on, who asks is told what is wrong and what mends it,
// and when it is mended nothing is lost.
func TestRefusedInMidTraining(t *testing.T) {
	writes := func(r *http.Request) bool { return r.Method == http.MethodPut || r.Method == http.MethodPost }
	all := func(*http.Request) bool { return true }
	for _, tt := range []struct {
		name       string
		start      func(testing.TB) *servers.Server
		meets      func(*http.Request) bool
		answer     badnet.Answer
		text, hint string
	}{
		{"s3 expired", storagetest.StartS3, all, badnet.Answer{Status: 400, Code: "ExpiredToken"},
			"the credentials have expired", "aws sso login"},
		{"s3 clock", storagetest.StartS3, all, badnet.Answer{Status: 403, Code: "RequestTimeTooSkewed"},
			"the clock of this machine is wrong", "timedatectl"},
		{"s3 quota", storagetest.StartS3, writes, badnet.Answer{Status: 403, Code: "QuotaExceeded"},
			"the quota is used up", "commits stay on this machine"},
		{"s3 bucket", storagetest.StartS3, all, badnet.Answer{Status: 404, Code: "NoSuchBucket"},
			"bucket does not exist", "--create"},
		{"gs denied", storagetest.StartGCS, writes, badnet.Answer{Status: 403, Code: "forbidden"},
			"permission denied: storage.objects.create", "objectUser"},
		{"gs expired", storagetest.StartGCS, all, badnet.Answer{Status: 401, Code: "authError"},
			"the credentials are wrong or have expired", "gcloud auth application-default login"},
		{"gs quota", storagetest.StartGCS, writes, badnet.Answer{Status: 403, Code: "quotaExceeded"},
			"the quota is used up", "commits stay on this machine"},
		{"gs bucket", storagetest.StartGCS, all, badnet.Answer{Status: 404, Code: "notFound", Message: "The specified bucket does not exist."},
			"bucket does not exist", "--create"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.start(t)
			url := storagetest.Prefix(s.URL)
			proxy, env := storagetest.StartProxy(t, s, 1)
			l, owner := machine(t, url, env), machine(t, url, s.Env())
			l.setenv("REPLICATE_EXIT_WAIT", "0.1")
			tr := l.train("1000000")
			tr.goesOnWithout(owner, func() error {
				proxy.Intercept(func(r *http.Request) *badnet.Answer {
					if tt.meets(r) {
						return &tt.answer
					}
					return nil
				})
				return nil
			})
			tr.stdin.Close()
			if stderr, err := tr.wait(); err != nil || !tr.done {
				t.Errorf("the training did not end well: %v\n%s", err, stderr)
			}
			if out, stderr, code := l.try(binary, "upload"); code == 0 || !strings.Contains(stderr, tt.text) || !strings.Contains(stderr, tt.hint) {
				t.Errorf("upload: exit code %d\n%s%s", code, out, stderr)
			}
			proxy.Intercept(nil)
			l.uploads()
			owner.verify(tr, "recorder", time.Now())
			owner.check(url)
		})
	}
}
