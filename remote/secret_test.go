package remote_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// guarded uses its secret, commits, and waits.
const guarded = `import os, replicate, time
assert os.environ["TOKEN"] and os.environ["HF_TOKEN"]
assert not [name for name in os.environ if name.startswith("AWS_")]
experiment = replicate.init(lr=0.1)
experiment.commit(step=1)
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
`

// TestSecretsStayInMemory runs a job that has secrets, into a bucket that wants credentials. While it runs only the processes that need them have them, and nothing
// that Docker and we keep of it has them at any time.
func TestSecretsStayInMemory(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	s := storagetest.StartVersity(t)
	d.expose(s)
	token, other, password := rand.Text(), rand.Text(), rand.Text()
	d.setenv("HF_TOKEN", other)
	d.write("replicate.yaml", "image: "+remotetest.Image+"\nstorage: "+storagetest.Prefix(s.URL)+"\nenv: [HF_TOKEN]\n")
	d.write("train.py", guarded)
	run := d.begin("run", "-H", "rh1", "--env", "TOKEN="+token, "train.py", "--password", password)
	id := run.id()
	run.prints("ready")
	d.within(time.Minute, "the commit is stored", func() bool { return d.only().NumCommits == 1 })

	planted := map[string]string{"TOKEN": token, "HF_TOKEN": other, "the key of the bucket": servers.SecretKey}
	d.noneOf(planted, "arguments of processes", host.Run(t, "sh", "-c", "cat /proc/[0-9]*/cmdline"))
	d.noneOf(planted, "environment of processes", host.Run(t, "sh", "-c",
		// the job and the uploader are the ones that are to have their secrets
		`for p in /proc/[0-9]*; do case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in "python -u train.py"*|*/replicate\ uploader*|*/replicate\ record*) ;; *) cat $p/environ 2>/dev/null ;; esac; done`))
	d.nothingKept(host, id, planted)
	d.inside(host, id, "touch", "go")
	if code := run.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	d.nothingKept(host, id, planted)
	planted["an argument"] = password // which the host sees, and nobody is told of again
	d.noneOf(planted, "what run says", run.err()+run.out())
	if !strings.Contains(run.err(), "looks like a secret") {
		t.Error("nothing was said of an argument that looks like a secret")
	}
	d.noneOf(planted, "the experiment", d.replicate("show", "--json", id)+d.replicate("logs", id)+d.replicate("ls", "--json"))
	out := filepath.Join(d.home, "out")
	d.replicate("checkout", "-o", out, id)
	d.noneOf(planted, "the commit", d.filesBelow(out))
	d.noneOf(planted, "what we keep here", d.filesBelow(filepath.Join(d.dir, ".replicate"))+d.filesBelow(filepath.Join(d.home, "cache")))
}

// nothingKept looks for secrets in what a host keeps.
func (d *desk) nothingKept(host *remotetest.Host, id string, planted map[string]string) {
	d.t.Helper()
	images := strings.Fields(host.Docker(d.t, "images", "-aq"))
	d.noneOf(planted, "docker inspect", host.Docker(d.t, append([]string{"inspect", "replicate-run-" + id}, images...)...))
	for _, image := range images {
		d.noneOf(planted, "docker history", host.Docker(d.t, "history", "--no-trunc", image))
	}
	d.noneOf(planted, "docker logs", host.Docker(d.t, "logs", "replicate-run-"+id))
	for name, value := range planted {
		found := host.Run(d.t, "sh", "-c", `grep -rlaF -e "$1" /run/lab/data/containers /run/lab/data/volumes /run/lab/data/image /run/lab/*.log /home /root || true
			for upper in /run/lab/data/overlay2/*/diff; do grep -rlaF -e "$1" "$upper/etc" "$upper/root" "$upper/tmp" "$upper/run" "$upper/var" "$upper/.replicate" 2>/dev/null || true; done`,
			"sh", value)
		if found != "" {
			d.t.Errorf("%s is in\n%s", name, found)
		}
	}
}

func (d *desk) noneOf(planted map[string]string, where, text string) {
	d.t.Helper()
	for name, value := range planted {
		if at := strings.Index(text, value); at >= 0 {
			d.t.Errorf("%s is in %s: %q", name, where, text[max(0, at-200):at])
		}
	}
}

// filesBelow returns the content of all files below a directory.
func (d *desk) filesBelow(dir string) string {
	d.t.Helper()
	var all strings.Builder
	d.must(filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			all.WriteString(d.read(path))
		}
		return err
	}))
	return all.String()
}
