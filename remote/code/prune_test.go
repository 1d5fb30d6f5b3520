package code

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/repository"
)

const day = 24 * time.Hour

// A pruned has chunks, and gets trees.
type pruned struct {
	t      *testing.T
	chunks string
	home   string // of the sender
}

func newPruned(t *testing.T) *pruned {
	return &pruned{t, filepath.Join(t.TempDir(), "chunks"), t.TempDir()}
}

// tree makes a tree of files with random content of these seeds, 1000 bytes each.
func (p *pruned) tree(seeds ...uint64) *Tree {
	p.t.Helper()
	root := p.t.TempDir()
	for _, seed := range seeds {
		write(p.t, filepath.Join(root, string(rune('a'+seed))), random(seed, 1000))
	}
	return scan(p.t, Options{Root: root, Memory: filepath.Join(p.home, "sent")})
}

func (p *pruned) receive(name string, tree *Tree) {
	p.t.Helper()
	transfer(p.t, tree, ReceiveOptions{Chunks: p.chunks, Target: filepath.Join(p.t.TempDir(), "code"), Name: name})
}

// age makes everything that is there some days older.
func (p *pruned) age(days int) {
	p.t.Helper()
	must(p.t, filepath.WalkDir(p.chunks, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		then := info.ModTime().AddDate(0, 0, -days)
		return os.Chtimes(path, then, then)
	}))
}

// prune deletes what was not used for 30 days, and returns how many chunks that were.
func (p *pruned) prune(dryRun bool, kept ...string) int {
	p.t.Helper()
	keep := func(name string) bool {
		for _, k := range kept {
			if name == k {
				return true
			}
		}
		return false
	}
	got, err := Prune(p.chunks, PruneOptions{Now: time.Now(), Unused: 30 * day, Keep: keep, DryRun: dryRun})
	must(p.t, err)
	if got.Bytes != 1000*int64(got.Chunks) {
		p.t.Errorf("%d chunks of 1000 bytes have %d", got.Chunks, got.Bytes)
	}
	return got.Chunks
}

func (p *pruned) want(what string, got, want int) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s: %d chunks were deleted, not %d", what, got, want)
	}
}

func TestPruneDeletesWhatNobodyUsed(t *testing.T) {
	p := newPruned(t)
	p.receive("one", p.tree(1, 2))
	p.receive("two", p.tree(2, 3))
	p.want("young", p.prune(false), 0)
	p.age(25)
	p.receive("three", p.tree(3, 4))
	p.want("not old yet", p.prune(false, "one", "two"), 0)
	p.age(7)
	p.want("all of it in trees", p.prune(true, "one", "two"), 0)
	p.want("in one", p.prune(true, "one"), 0)
	p.want("in two", p.prune(true, "two"), 1)
	p.want("in none", p.prune(true), 2)
	p.want("deleted", p.prune(false, "three"), 2)
	p.age(25)
	p.want("what three used", p.prune(true), 2)
	p.want("what three used and its run has", p.prune(false, "three"), 0)
	if left, _ := filepath.Glob(p.chunks + "/" + treesDir + "/*"); len(left) != 1 {
		t.Errorf("trees are left: %v", left)
	}
	p.want("deleted at last", p.prune(false), 2)
}

func TestPruneKeepsWhatARunUsesThatNobodyToldOf(t *testing.T) {
	p := newPruned(t)
	p.receive("old", p.tree(1, 2))
	p.age(60)
	tree := Manifest{[]Entry{{Path: "b", Mode: 0o644, Size: 1000, Pieces: []Piece{{Size: 1000, Hash: repository.HashOf(random(1, 1000))}}}}}
	must(t, chunks{p.chunks}.keepTree("new", tree.Append(nil))) // it has not asked for its chunks
	p.want("beside one that begins", p.prune(false), 1)
	p.age(1)
	p.want("given up", p.prune(false), 1)
}

func TestPruneDeletesWhatKilledOnesLeft(t *testing.T) {
	p := newPruned(t)
	p.receive("one", p.tree(1))
	for _, dir := range []string{filepath.Dir(chunkFiles(t, p.chunks)[0]), filepath.Join(p.chunks, treesDir)} {
		must(t, os.WriteFile(dir+"/"+tempName+"1", bytes.Repeat([]byte("x"), 1000), 0o600))
	}
	p.want("being written", p.prune(false, "one"), 0)
	p.age(2)
	p.want("killed", p.prune(false, "one"), 1)
	if left, _ := filepath.Glob(p.chunks + "/*/" + tempName + "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestADamagedTreeHoldsUpNothing has a tree of a run that stays, and that nobody can read.
func TestADamagedTreeHoldsUpNothing(t *testing.T) {
	p := newPruned(t)
	p.receive("one", p.tree(1))
	must(t, os.WriteFile(filepath.Join(p.chunks, treesDir, "one"), []byte("RPLCODE1"), 0o600))
	p.age(60)
	p.want("damaged", p.prune(false, "one"), 1)
}

// A pruningConn prunes when the receiver says for the first time what it has not.
type pruningConn struct {
	net.Conn
	once  sync.Once
	prune func()
}

func (c *pruningConn) Write(b []byte) (int, error) {
	c.once.Do(c.prune)
	return c.Conn.Write(b)
}

func TestWhatIsPrunedUnderATransferIsSentAgain(t *testing.T) {
	p := newPruned(t)
	tree := p.tree(1, 2, 3)
	p.receive("one", tree)
	here, there := net.Pipe()
	conn := &pruningConn{Conn: there, prune: func() {
		got, err := Prune(p.chunks, PruneOptions{Now: time.Now().AddDate(1, 0, 0)}) // as if nothing of it were in use
		if err != nil || got.Chunks != 3 {
			t.Errorf("%d chunks were deleted: %v", got.Chunks, err)
		}
	}}
	target := filepath.Join(t.TempDir(), "code")
	report, sent, received := ends(t.Context(), tree, here, conn, ReceiveOptions{Chunks: p.chunks, Target: target, Name: "two"})
	must(t, sent)
	must(t, received)
	if report.Sent != 2*3000 { // unasked, and again
		t.Errorf("%d bytes were sent", report.Sent)
	}
	for seed := range uint64(3) {
		if got, err := os.ReadFile(filepath.Join(target, string(rune('b'+seed)))); err != nil || !bytes.Equal(got, random(seed+1, 1000)) {
			t.Errorf("file %d: %d bytes, %v", seed, len(got), err)
		}
	}
}
