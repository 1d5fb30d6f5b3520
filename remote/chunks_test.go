package remote_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/remote/remotetest"
	"github.com/replicate/replicate/storage/repository"
)

// pruneArgv drops all chunks that are in no tree of the last day, as if each were two months old.
func pruneArgv(container string) []string {
	now := time.Now().AddDate(0, 2, 0).UTC().Format(time.RFC3339)
	return []string{"exec", container, "/.replicate/bin/replicate", "supervise", "prune", "--now", now, "--unused", "720h", "/replicate-chunks"}
}

// hasChunk reports whether a host has the chunk of a small file.
func hasChunk(t *testing.T, host *remotetest.Host, container, content string) bool {
	t.Helper()
	hash := repository.HashOf([]byte(content)).String()
	out := host.Docker(t, "exec", container, "find", "/replicate-chunks", "-name", hash)
	return strings.Contains(out, hash)
}

func TestPruneOfChunks(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	kept, dropped := "kept "+t.Name()+d.dir, "dropped "+t.Name()+d.dir
	d.write("file", kept)
	lasting := strings.TrimSpace(d.replicate("run", "-d", "-H", "unix://"+host.Socket(), "sleep", "1000"))
	long := "replicate-run-" + d.only().ID
	t.Cleanup(func() { d.replicate("stop", lasting) })
	d.write("file", dropped)
	d.replicate("run", "-H", "unix://"+host.Socket(), "true")
	w := newWarehouseAt(t, host)
	volume := strings.TrimSpace(host.Docker(t, "volume", "ls", "-q", "--filter", "label=replicate.kind=chunks"))
	if removed, _ := w.prune(29, remote.PruneOptions{DryRun: true}); slices.Contains(removed, volume) {
		t.Error("chunks are removed that may have been used 29 days ago")
	}
	for _, o := range []remote.PruneOptions{{DryRun: true}, {}} {
		var size int64
		o.Now = time.Now().AddDate(0, 2, 0)
		d.must(w.host.Prune(t.Context(), o, func(p remote.Pruned) {
			if p.Name == volume {
				size = p.Size
			}
		}))
		if size < int64(len(dropped)) {
			t.Errorf("dry run %t: chunks of %d bytes are removed", o.DryRun, size)
		}
		if !hasChunk(t, host, long, kept) {
			t.Errorf("dry run %t: what a run has is gone", o.DryRun)
		}
		if hasChunk(t, host, long, dropped) != o.DryRun {
			t.Errorf("dry run %t: what no run has is there: %t", o.DryRun, !o.DryRun)
		}
	}
	if left := host.Docker(t, "ps", "-a", "--format", "{{.Names}}"); strings.Contains(left, "replicate-prune-") {
		t.Errorf("there is %s", left)
	}
}

// TestARunThatBeginsDuringAPruneIsWhole drops all chunks again and again while a working directory is sent that was sent before.
func TestARunThatBeginsDuringAPruneIsWhole(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	for i := range 500 {
		d.write(fmt.Sprintf("files/%03d", i), fmt.Sprintf("%d of %s", i, d.dir))
	}
	lasting := strings.TrimSpace(d.replicate("run", "-d", "-H", "unix://"+host.Socket(), "sleep", "1000"))
	long := "replicate-run-" + d.only().ID
	t.Cleanup(func() { d.replicate("stop", lasting) })
	begun, over := make(chan struct{}), make(chan struct{})
	var pruner sync.WaitGroup
	var dropped []string
	pruner.Go(func() {
		dropped = append(dropped, host.Docker(t, pruneArgv(long)...))
		close(begun)
		for {
			dropped = append(dropped, host.Docker(t, pruneArgv(long)...))
			select {
			case <-over:
				return
			default:
			}
		}
	})
	<-begun
	o := d.try("run", "-H", "unix://"+host.Socket(), "true")
	close(over)
	pruner.Wait()
	t.Logf("dropped: %q", dropped)
	if o.code != 0 {
		t.Fatalf("exit code %d: %s", o.code, o.stderr)
	}
	list := d.list()
	d.sameAs(d.arrived(0, list[len(list)-1].ID))
}
