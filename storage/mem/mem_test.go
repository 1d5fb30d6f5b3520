package mem_test

import (
	"testing"
	"time"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Conformance(t, func(t *testing.T) storage.Store { return mem.New(t.Name(), time.Now) })
}

func TestOpenFindsTheSameStore(t *testing.T) {
	a, err := storage.Open(t.Context(), "mem://x/y")
	if err != nil {
		t.Fatal(err)
	}
	b, err := storage.Open(t.Context(), "mem://x/y")
	if err != nil || a != b || a.URL() != "mem://x/y" {
		t.Errorf("%v, %v", b, err)
	}
	if c, err := storage.Open(t.Context(), "mem://x/z"); err != nil || c == a {
		t.Errorf("%v, %v", c, err)
	}
}

func TestClockIsTheOneGiven(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	s := mem.New("clock", func() time.Time { return at })
	put := storagetest.Put(t, s, "a", nil)
	at = at.Add(time.Hour)
	now, err := s.Now(t.Context())
	if err != nil || now.Sub(put) != time.Hour {
		t.Errorf("put at %v, now %v, %v", put, now, err)
	}
}
