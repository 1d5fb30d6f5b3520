package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/s3"
	"github.com/replicate/replicate/storage/storagetest/badnet"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

const (
	// farAway is how long a round trip to the bucket takes: another region of the same continent.
	farAway = 30 * time.Millisecond
	// treeBytes is what the tree holds, about: its weights cannot be compressed, its texts to two thirds.
	treeBytes = 2*weights + smallFiles*smallSize
	// bigFile is the size of the file that is read through mounts.
	bigFile = 1_000_000_000
	// mostFarRounds bounds the rounds of what takes seconds each.
	mostFarRounds = 3
)

// A far is a bucket behind a link that has a length and a width, and counts.
type far struct {
	*lab
	server *servers.Server
	proxy  *badnet.Proxy
	did    map[string]string // by contender: the requests and bytes of its last round
}

// bucketRows measures what replicate does with a bucket that is 30 ms away, beside restic and rclone with the same one.
func bucketRows(l *lab) error {
	return l.withBucket(func(f *far) error {
		for _, rows := range []func() error{f.plain, f.trees, f.questions, f.appearing, f.many} {
			if err := rows(); err != nil {
				return err
			}
		}
		return nil
	})
}

// bucketMountRows measures a mount of the same bucket.
func bucketMountRows(l *lab) error { return l.withBucket((*far).mounts) }

func (l *lab) withBucket(rows func(*far) error) error {
	f, err := l.farBucket()
	if err != nil {
		return err
	}
	defer f.close()
	rounds := l.rounds
	l.rounds = min(rounds, mostFarRounds)
	defer func() { l.rounds = rounds }()
	return rows(f)
}

// farBucket starts versitygw, if it was built, else gofakes3, and a link to it, and makes all commands use both.
func (l *lab) farBucket() (*far, error) {
	f := &far{lab: l, did: map[string]string{}}
	name := "gofakes3"
	programs, err := filepath.Glob(filepath.Join(l.caches, "replicate-test", "versitygw-v*"))
	if len(programs) > 0 {
		name = "versitygw"
		f.server, err = servers.Versity(programs[len(programs)-1], l.path("bucket"))
	} else if err == nil {
		f.server, err = servers.GoFakeS3()
	}
	if err != nil {
		return nil, err
	}
	if f.proxy, err = badnet.New(f.server.Endpoint, 1); err != nil {
		f.server.Close()
		return nil, err
	}
	f.network(farAway, l.link)
	env := f.server.EnvVia(f.proxy.URL)
	env["RESTIC_PASSWORD"] = "bench"
	env["AWS_CA_BUNDLE"] = "" // rclone cannot use one
	for key, value := range map[string]string{"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": f.proxy.URL} {
		env["RCLONE_CONFIG_FAR_"+key] = value
	}
	for key, value := range env {
		os.Setenv(key, value)
	}
	l.add("the bucket: "+name, "", fmt.Sprintf("a link of %v and %s/s each way", farAway, megabytes(l.link)))
	return f, nil
}

func (f *far) close() {
	f.proxy.Close()
	f.server.Close()
}

func (f *far) network(rtt time.Duration, rate int64) {
	f.proxy.Set(badnet.Weather{RTT: rtt, Bandwidth: rate})
}

// atLink is how long n bytes may take where a part of the link, in percent, is asked for.
func (f *far) atLink(n int64, percent int64) string {
	return fmt.Sprintf("%s (%d %% of the link)", seconds(time.Duration(n*100/percent)*time.Second/time.Duration(f.link)), percent)
}

// counting makes contenders that note what they asked of the bucket.
func (f *far) counting(contenders ...contender) []contender {
	for i, c := range contenders {
		contenders[i].run = func(round int) error {
			f.proxy.Exchanges()
			up, back := f.proxy.Carried()
			err := c.run(round)
			all := f.proxy.Exchanges()
			upNow, backNow := f.proxy.Carried()
			f.did[c.name] = fmt.Sprintf("%d requests in %s, %s up, %s down", len(all), trips(all), amount(upNow-up), amount(backNow-back))
			f.explain(c.name, all)
			return err
		}
	}
	return contenders
}

// trips is how many round trips followed one another, those for connections included.
func trips(all []badnet.Exchange) string {
	n := badnet.Trips(all)
	if n == 1 {
		return "1 round trip"
	}
	return fmt.Sprintf("%d round trips", n)
}

// explain prints what was asked for, and when, if that is wanted.
func (f *far) explain(name string, all []badnet.Exchange) {
	if !f.verbose || len(all) == 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "%s:\n", name)
	since := func(t time.Time) time.Duration { return t.Sub(all[0].Came).Round(time.Millisecond) }
	for _, e := range all {
		opened := ""
		if !e.Dialled.IsZero() {
			opened = fmt.Sprintf(", by a connection dialled at %v", since(e.Dialled))
		}
		fmt.Fprintf(os.Stderr, "%8v %8v  %s %s%s\n", since(e.Came), since(e.Answered), e.Request, e.Range, opened)
	}
}

func amount(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
	return megabytes(n)
}

// report races contenders and adds a row with what they asked for.
func (f *far) report(what, bar string, contenders ...contender) error {
	times, err := f.race(f.counting(contenders...)...)
	if err != nil {
		return err
	}
	f.addFar(what, bar, times, contenders...)
	return nil
}

func (f *far) addFar(what, bar string, times map[string]timing, contenders ...contender) {
	var peers []string
	for _, c := range contenders[1:] {
		if did, ok := f.did[c.name]; ok {
			peers = append(peers, fmt.Sprintf("%s %s (%s)", c.name, times[c.name], did))
		}
	}
	ours := contenders[0].name
	f.add(what, fmt.Sprintf("%s (%s)", times[ours], f.did[ours]), bar, peers...)
}

// project makes a project below the lab whose storage is a prefix of the bucket.
func (f *far) project(dir, prefix string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "replicate.yaml"), []byte("storage: "+f.server.URL+"/"+prefix+"\n"), 0o644)
}

// upload waits until all that a project recorded is in the bucket.
func (f *far) upload(dir string) error {
	_, err := command(dir, f.binary, "upload")
	return err
}

// direct runs f without the link.
func (f *far) direct(run func() error) error {
	f.network(0, 0)
	defer f.network(farAway, f.link)
	return run()
}

// forget makes this machine one that never saw the bucket.
func (f *far) forget() error { return f.putAway("cache", ".cache") }

// uploaded records a commit of a project, and sends it without the link.
func (f *far) uploaded(dir string) error {
	return f.direct(func() error {
		if err := f.commitOnce(dir); err != nil {
			return err
		}
		return f.upload(dir)
	})
}

// plain measures the link itself: one object of 64 MB, each way, by the simplest program there is.
func (f *far) plain() error {
	name := f.path("plain.bin")
	if err := writeRandom(name, 64_000_000, rand.NewChaCha8([32]byte{3})); err != nil {
		return err
	}
	if !installed("curl") {
		return nil
	}
	times, err := f.race(
		contender{"up", nil, func(int) error { return f.curl("-T %s", "plain", name) }},
		contender{"down", nil, func(int) error { return f.curl("-o /dev/null", "plain") }})
	if err != nil {
		return err
	}
	rate := func(name string) string {
		return name + " " + megabytes(int64(64_000_000/times[name].median().Seconds())) + "/s"
	}
	f.add("one connection of curl, 64 MB", "", "", rate("up"), rate("down"))
	return nil
}

// curl makes one request about an object of the bucket.
func (f *far) curl(what, key string, args ...any) error {
	return sh(f.dir, "curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user %s:%s -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' %s %s/%s/%s",
		servers.AccessKey, servers.SecretKey, fmt.Sprintf(what, args...), f.proxy.URL, servers.Bucket, key)
}

// trees measures commit, upload and checkout of the tree.
func (f *far) trees() error {
	here, there := f.path("tree-local"), f.path("tree-far")
	for _, dir := range []string{here, there} {
		if err := makeTree(dir); err != nil {
			return err
		}
	}
	if err := f.commits(here, there); err != nil {
		return err
	}
	return f.checkouts(there)
}

// commits races commits on a local storage and for the bucket, and then the way there.
func (f *far) commits(here, there string) error {
	blocked := map[string]timing{}
	// record commits, calls committed, and waits until all of it is where it belongs.
	record := func(name, dir string, committed func()) error {
		r, err := f.startRecorder(dir)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := r.init(dir); err != nil { // which saves the tree
			return err
		}
		if err := r.commit(0); err != nil {
			return err
		}
		blocked[name] = append(blocked[name], time.Since(start))
		committed()
		if name == "local" {
			return r.end()
		}
		if err := f.upload(dir); err != nil { // the end waits for it too
			return err
		}
		return r.end()
	}
	// The server is on this machine and writes to the same disk. That is not what a training waits for: packs are held up until the commit is done.
	held := func(int) error {
		hold := make(chan struct{})
		release := sync.OnceFunc(func() { close(hold) })
		defer release()
		f.proxy.Intercept(func(r *http.Request) *badnet.Answer {
			if strings.Contains(r.URL.Path, "/pack/") {
				<-hold
			}
			return nil
		})
		defer f.proxy.Intercept(nil)
		return record("held", there, release)
	}
	_, err := f.race(
		contender{"held", func(round int) error { return f.emptyPrefix(there, -1-round) }, held},
		contender{"local", func(int) error { return os.RemoveAll(here + "/.replicate") }, func(int) error { return record("local", here, func() {}) }})
	if err != nil {
		return err
	}
	contenders := []contender{{"replicate", func(round int) error { return f.emptyPrefix(there, round) },
		func(int) error { return record("with the server's own work", there, func() {}) }}}
	if installed("restic") {
		contenders = append(contenders, contender{"restic", func(round int) error {
			return f.direct(func() error { return sh(there, "restic init -q -r %s", f.restic(round)) })
		}, func(round int) error { return sh(there, "restic backup -q -r %s data weights", f.restic(round)) }})
	}
	if installed("rclone") {
		contenders = append(contenders, contender{"rclone", nil, func(round int) error {
			return sh(there, "rclone copy -q --transfers 16 --exclude '.replicate/**' . far:%s/rclone-%d", servers.Bucket, round)
		}})
	}
	times, err := f.race(f.counting(contenders...)...)
	if err != nil {
		return err
	}
	f.add("init and commit of the 225 MB tree for a bucket: training waits", blocked["held"].String(), "as on local storage",
		beside(blocked, "local", "with the server's own work")...)
	f.addFar("  until all of it is in the bucket", f.atLink(treeBytes, 80), times, contenders...)
	return nil
}

// emptyPrefix points a project to a new repository, which exists.
func (f *far) emptyPrefix(dir string, round int) error {
	here, err := filepath.Rel(f.dir, filepath.Join(dir, ".replicate"))
	if err != nil {
		return err
	}
	if err := f.putAway(here, "seed"); err != nil {
		return err
	}
	seed := f.path("seed")
	prefix := fmt.Sprintf("tree-%d", round)
	if err := f.project(seed, prefix); err != nil {
		return err
	}
	if err := f.uploaded(seed); err != nil {
		return err
	}
	return f.project(dir, prefix)
}

func (f *far) restic(round int) string {
	return fmt.Sprintf("s3:%s/%s/restic-%d", f.proxy.URL, servers.Bucket, round)
}

// checkouts races getting the tree on a machine that never saw the bucket.
func (f *far) checkouts(project string) error {
	last := f.rounds - 1
	contenders := []contender{{"replicate", func(int) error {
		if err := f.putAway("out"); err != nil {
			return err
		}
		return f.forget()
	}, func(int) error {
		_, err := command(project, f.binary, "checkout", "-o", f.path("out"), "@latest")
		return err
	}}}
	if installed("restic") {
		contenders = append(contenders, contender{"restic", contenders[0].prepare, func(int) error {
			return sh(f.dir, "restic restore -q -r %s latest -t out", f.restic(last))
		}})
	}
	if installed("rclone") {
		contenders = append(contenders, contender{"rclone", contenders[0].prepare, func(int) error {
			return sh(f.dir, "rclone copy -q --transfers 16 far:%s/rclone-%d out", servers.Bucket, last)
		}})
	}
	return f.report("checkout of it, nothing known of the bucket", f.atLink(treeBytes, 80), contenders...)
}

// questions measures what is small: a listing that brings nothing new, and one file of an old commit.
func (f *far) questions() error {
	dir := f.path("small")
	if err := f.project(dir, "small"); err != nil {
		return err
	}
	name := filepath.Join(dir, "notes.txt")
	for step := range 3 {
		if err := os.WriteFile(name, fmt.Appendf(nil, "step %d\n", step), 0o644); err != nil {
			return err
		}
		if err := f.uploaded(dir); err != nil {
			return err
		}
	}
	ls := func(int) error { _, err := command(dir, f.binary, "ls", "-n", "1"); return err }
	if err := ls(0); err != nil {
		return err
	}
	if err := f.report("ls, nothing new in the bucket, whole process", "200 ms", contender{"replicate", nil, ls}); err != nil {
		return err
	}
	ids, err := command(dir, f.binary, "ls", "-q")
	if err != nil {
		return err
	}
	oldest := lastLine(ids)
	cat := func(int) error { _, err := command(dir, f.binary, "cat", oldest+"@latest:notes.txt"); return err }
	known := contender{"replicate", func(round int) error {
		if err := f.forget(); err != nil {
			return err
		}
		return ls(round)
	}, cat}
	contenders := []contender{known}
	if installed("restic") {
		contenders = append(contenders, contender{"restic", nil, func(int) error {
			return sh(f.dir, "restic dump -q -r %s latest /data/07/0007.txt", f.restic(0))
		}})
	}
	if err := f.report("cat of a small file of an old commit that was never read, whole process", "4 round trips", contenders...); err != nil {
		return err
	}
	fresh := contender{"replicate", func(int) error { return f.forget() }, cat}
	return f.report("  the same, nothing known of the bucket", "", fresh)
}

// many measures the first listing of a large repository that is merged, on a machine that never saw it.
func (f *far) many() error {
	const experiments, commits = 100_000, 10
	ctx, dir := context.Background(), f.path("many")
	if err := f.project(dir, "many"); err != nil {
		return err
	}
	here := f.path("many-here")
	r, err := manyExperiments(here, experiments, commits, experiments/300) // so many objects that a merge is due
	if err != nil {
		return err
	}
	if err := r.Merge(ctx); err != nil {
		return err
	}
	if err := f.direct(func() error { return copyObjects(ctx, "file://"+here, f.server.URL+"/many") }); err != nil {
		return err
	}
	return f.report("first ls over 100k experiments and 1M commits, no index yet", "3 s", contender{"replicate", func(int) error { return f.forget() },
		func(int) error { _, err := command(dir, f.binary, "ls", "-n", "1"); return err }})
}

// copyObjects copies all objects of a store that stay small.
func copyObjects(ctx context.Context, from, to string) error {
	source, err := storage.Open(ctx, from)
	if err != nil {
		return err
	}
	target, err := storage.Open(ctx, to)
	if err != nil {
		return err
	}
	for o, err := range source.List(ctx, "", "") {
		if err != nil {
			return err
		}
		body, err := source.Get(ctx, o.Key, 0, -1)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(body)
		body.Close()
		if err != nil {
			return err
		}
		if _, err := target.Put(ctx, o.Key, bytes.NewReader(data), o.Size); err != nil {
			return err
		}
	}
	return nil
}
