package repository

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest"
)

func TestCreateThenOpen(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(t.Context(), store); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open of an empty storage: %v", err)
			}
			made, err := Create(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				again, err := Create(t.Context(), store)
				if err != nil || again.ID() != made.ID() {
					t.Fatalf("created again: %v, %v", again, err)
				}
			}
			opened, err := Open(t.Context(), store)
			if err != nil || opened.ID() != made.ID() {
				t.Fatalf("opened: %v, %v", opened, err)
			}
			if _, err := replicate.ParseID(opened.ID()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFirstCommandsAgree(t *testing.T) {
	store := diskStore(t)
	ids := make([]string, 8)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			if r, err := Create(t.Context(), store); err == nil {
				ids[i] = r.ID()
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("ids %q", ids)
		}
	}
}

func TestOpenSaysWhatIsThere(t *testing.T) {
	tests := []struct {
		name, key, data string
		kind            replicate.Kind
		want, hint      string
	}{
		{"empty", "", "", replicate.NotFound, "there is no repository yet", "the first experiment makes it"},
		{"foreign", "photos/cat.jpg", "x", replicate.Conflict, "this is no repository, it holds other files: photos/cat.jpg", "check storage in replicate.yaml, or -S"},
		{"lost", "log/0123", "x", replicate.Corrupt, "replicate.json is missing beside log/0123", "the next commit makes it anew"},
		{"newer", configKey, `{"replicate":2}`, replicate.Conflict, "the repository has format 2, and replicate " + replicate.Version + " reads formats up to 1",
			"install replicate that reads format 2, or newer"},
		{"newer says which", configKey, `{"replicate":3,"needs":"1.4.0","id":7}`, replicate.Conflict, "the repository has format 3, and replicate " + replicate.Version + " reads formats up to 1",
			"install replicate 1.4.0 or newer"},
		{"no JSON", configKey, `{"replicate":1,`, replicate.Corrupt, "replicate.json is damaged: unexpected end of JSON input", "delete replicate.json: the next commit makes it anew, and nothing that is stored depends on it"},
		{"no bytes", configKey, "", replicate.Corrupt, "replicate.json is damaged: unexpected end of JSON input", "delete replicate.json: the next commit makes it anew, and nothing that is stored depends on it"},
		{"no id", configKey, `{"replicate":1}`, replicate.Corrupt, `replicate.json is damaged: version 1, id ""`, "delete replicate.json: the next commit makes it anew, and nothing that is stored depends on it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := memStore(t)
			if tt.key != "" {
				if _, err := store.Put(t.Context(), tt.key, bytes.NewReader([]byte(tt.data)), int64(len(tt.data))); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(t.Context(), store)
			if want := "open " + store.URL() + ": " + tt.want; err == nil || err.Error() != want {
				t.Errorf("error %q, want %q", err, want)
			}
			if replicate.KindOf(err) != tt.kind || replicate.HintOf(err) != tt.hint {
				t.Errorf("kind %s, hint %q", replicate.KindOf(err), replicate.HintOf(err))
			}
			if _, err := Create(t.Context(), store); (err == nil) != (tt.key != configKey) {
				t.Errorf("create: %v", err)
			}
		})
	}
}

// TestOpenWhileItIsMade makes the repository when another process has not found it and looks what is there instead.
func TestOpenWhileItIsMade(t *testing.T) {
	store := memStore(t)
	var made *Repository
	late := storagetest.Wrap(store, storagetest.Hooks{Before: func(ctx context.Context, c storagetest.Call) (err error) {
		if c.Op == storagetest.OpList {
			made, err = Create(ctx, store)
		}
		return err
	}})
	opened, err := Open(t.Context(), late)
	if err != nil || opened.ID() != made.ID() {
		t.Errorf("%+v, %v", opened, err)
	}
}

func TestSyncYieldsWhatIsNew(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			row := b.tree(fakeFile("a", "1"))
			first := b.log(b.commit(row), b.commit(row))
			second := b.log(b.commit(row))
			records, damage := syncAll(t, b.repo, nothingKnown)
			if len(records) != 2 || len(records[first]) != 2 || len(records[second]) != 1 || damage != nil {
				t.Fatalf("records %v, damage %v", records, damage)
			}
			records, _ = syncAll(t, b.repo, func(key string) bool { return key == first })
			if len(records) != 1 || len(records[second]) != 1 {
				t.Fatalf("records %v", records)
			}
		})
	}
}

func TestSyncReadsSegments(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			row := b.tree(fakeFile("a", "1"))
			var records []Record
			for range 20_000 {
				records = append(records, b.commit(row))
			}
			input := b.log(records[0])
			key, object, err := encodeSegment(1, records, []string{input})
			if err != nil {
				t.Fatal(err)
			}
			b.put(key, object)
			got, damage := syncAll(t, b.repo, nothingKnown)
			if len(got[key]) != len(records) || damage != nil {
				t.Fatalf("%d records, damage %v", len(got[key]), damage)
			}
			batches := 0
			for batch, err := range b.repo.Sync(t.Context(), func(key string) bool { return key == input }) {
				if batches++; err != nil || batch.Key != key || len(batch.Records) != 0 || !batch.Settled || len(batch.Inputs) != 1 {
					t.Fatalf("%+v, %v", batch, err)
				}
			}
			if batches != 1 {
				t.Fatalf("%d batches", batches)
			}
		})
	}
}

func TestHeartbeats(t *testing.T) {
	b := newBuilder(t, memStore(t))
	id := b.newID()
	if ages, err := b.repo.Heartbeats(t.Context()); err != nil || len(ages) != 0 {
		t.Fatal(ages, err)
	}
	b.put(liveKey(id), []byte(`{"experiment":"`+string(id)+`","writer":"5c00","time":"2026-01-02T03:04:05Z","step":812,"metrics":{"loss":1.0},"unsent":5,"ready":2}`))
	b.put("live/stranger", nil)
	ages, err := b.repo.Heartbeats(t.Context())
	if err != nil || len(ages) != 1 || ages[id] > time.Minute {
		t.Fatal(ages, err)
	}
	h, err := b.repo.Heartbeat(t.Context(), id)
	if err != nil || h.Step != 812 || h.Unsent != 5 || len(h.Metrics) != 1 {
		t.Fatal(h, err)
	}
	if _, err := b.repo.Heartbeat(t.Context(), b.newID()); replicate.KindOf(err) != replicate.NotFound {
		t.Fatal(err)
	}
}
