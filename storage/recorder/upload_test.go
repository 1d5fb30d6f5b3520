package recorder

import (
	"context"
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
	"github.com/replicate/replicate/storage/storagetest"
)

// away are storages that are not of this machine, by the host of their away: URL.
var away = map[string]storage.Store{}

func init() {
	storage.Register("away", func(_ context.Context, u *url.URL) (storage.Store, error) { return away[u.Host], nil })
}

// closedStore is a store that refuses every call as long as closed is true, and counts them.
type closedStore struct {
	storage.Store
	url    string
	closed atomic.Bool
	calls  atomic.Int64
}

func (s *closedStore) URL() string { return s.url }

func newClosedStore(t *testing.T) *closedStore {
	s := &closedStore{url: "away://" + strings.ToLower(t.Name())}
	s.Store = storagetest.Wrap(mem.New(t.Name(), time.Now), storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
		s.calls.Add(1)
		if s.closed.Load() {
			return storagetest.ErrFault
		}
		return nil
	}})
	away[strings.ToLower(t.Name())] = s
	return s
}

// TestRecordingAsksNoStorage records everything there is to record while the storage refuses every call, and uploads then.
func TestRecordingAsksNoStorage(t *testing.T) {
	store := newClosedStore(t)
	store.closed.Store(true)
	dir := newProject(t)
	write(t, filepath.Join(dir, "replicate.yaml"), "storage: "+store.url+"\n")
	started := make(chan string, 100)
	o := testOptions()
	o.Upload = func(p *project.Project) { started <- p.Root }
	r := startWith(t, dir, o)
	id := r.init(map[string]any{"name": "trial", "params": json.RawMessage(`{"lr":0.1}`)})
	for step := range 3 {
		if err := r.client.Post("log", map[string]any{"step": step, "metrics": json.RawMessage(`{"loss":0.5}`)}); err != nil {
			t.Fatal(err)
		}
		r.call("commit", map[string]any{"step": step, "metrics": json.RawMessage(`{"acc":1}`)})
	}
	if c := r.call("commit", map[string]any{"if_changed": true}); c["commit"] != "" {
		t.Errorf("a commit of nothing: %v", c)
	}
	if err := r.client.Post("set", map[string]any{"tags": []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	end := r.call("end", map[string]any{"status": "finished", "wait": 0.1})
	if left, _ := end["left"].(float64); left <= 0 {
		t.Errorf("the end says %v", end)
	}
	r.close()
	if n := store.calls.Load(); n > 0 {
		t.Errorf("the storage was asked %d times", n)
	}
	if root := <-started; root != dir {
		t.Errorf("an uploader was started for %s", root)
	}
	said := false
	for _, remark := range r.remarks {
		said = said || strings.Contains(remark.Note, "3 commits") && strings.Contains(remark.Note, "on the way to "+store.url)
	}
	if !said {
		t.Errorf("nobody was told what is left: %v", r.remarks)
	}

	store.closed.Store(false)
	if _, err := repository.OpenOutbox(store, filepath.Join(dir, ".replicate", "spool")).Upload(t.Context()); err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	s, err := findExperiment(t.Context(), repo, string(id))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.commits) != 3 || s.row.Status != replicate.Finished || s.row.Name != "trial" || len(s.row.Tags) != 1 || s.step != 2 {
		t.Errorf("%d commits, %+v, step %d", len(s.commits), s.row.Experiment, s.step)
	}
}

// TestResumeWithoutTheStorage begins a new experiment where the storage cannot say whether one goes on, and refuses an id that nobody here knows.
func TestResumeWithoutTheStorage(t *testing.T) {
	store := newClosedStore(t)
	store.closed.Store(true)
	dir := newProject(t)
	write(t, filepath.Join(dir, "replicate.yaml"), "storage: "+store.url+"\n")
	r := start(t, dir)
	r.init(map[string]any{"resume": true})
	if len(r.remarks) == 0 || !strings.Contains(r.remarks[0].Warning, "so a new one begins") {
		t.Errorf("told: %v", r.remarks)
	}
	r.close()
	r = start(t, dir)
	r.call("hello", map[string]any{"protocol": 1})
	err := r.client.Call("init", map[string]any{"cwd": dir, "resume": strings.Repeat("a", 32)}, nil)
	if replicate.KindOf(err) != replicate.Unavailable {
		t.Errorf("resuming what nobody knows: %v", err)
	}
	r.close()
}
