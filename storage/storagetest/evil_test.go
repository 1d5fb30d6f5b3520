package storagetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/mem"
	. "github.com/replicate/replicate/storage/storagetest"
)

// kinds are the stores that evil ones are tried on.
var kinds = []struct {
	name string
	open func(t *testing.T) storage.Store
}{
	{"mem", func(t *testing.T) storage.Store { return mem.New(t.Name(), time.Now) }},
	{"disk", func(t *testing.T) storage.Store {
		s, err := disk.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}},
}

// onEach runs a test on an empty store of each kind.
func onEach(t *testing.T, test func(t *testing.T, s storage.Store)) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) { test(t, kind.open(t)) })
	}
}

// A clock goes on when it is told to.
type clock struct {
	mu sync.Mutex // guards at
	at time.Time
}

func (c *clock) now() time.Time { return c.add(time.Nanosecond) }

func (c *clock) add(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	return c.at
}

func never(string) bool { return false }

// TestConformance shows that wrapping alone changes nothing, and that the suite asks for no more than a Store promises: listings may
// be late.
func TestConformance(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			Conformance(t, func(t *testing.T) storage.Store {
				c := &clock{at: time.Unix(1e9, 0)}
				s := Late(kind.open(t), time.Hour, c.now, rand.New(rand.NewPCG(1, 2)))
				s = Forgetful(Lying(t, Faulty(s), FlipBit, never), never)
				s = Stopped(s, &Stop{})
				return Slow(s, func(_ context.Context, call Call) error {
					if call.Op == OpList {
						c.add(time.Hour)
					}
					return nil
				})
			})
		})
	}
}

func TestWrapKeepsLocal(t *testing.T) {
	onEach(t, func(t *testing.T, s storage.Store) {
		evil := Stopped(Late(Faulty(s), time.Hour, time.Now, rand.New(rand.NewPCG(1, 2))), &Stop{})
		local, is := s.(storage.Local)
		evilLocal, evilIs := evil.(storage.Local)
		if is != evilIs {
			t.Fatalf("local %v became local %v", is, evilIs)
		}
		if !is {
			return
		}
		if evilLocal.Dir() != local.Dir() || evilLocal.Path("a/b") != local.Path("a/b") || evil.URL() != s.URL() {
			t.Error("wrapping changed where things are")
		}
		file := filepath.Join(t.TempDir(), "new")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := evilLocal.Adopt(t.Context(), "pack/a", file); err != nil {
			t.Fatal(err)
		}
		if got := Get(t, evil, "pack/a"); string(got) != "x" {
			t.Errorf("got %q", got)
		}
	})
}

func TestFaultyFailsTheNthCall(t *testing.T) {
	onEach(t, func(t *testing.T, s storage.Store) {
		mine := errors.New("mine")
		evil := Faulty(s, Fault{Op: OpPut, N: 2}, Fault{Op: OpPut, N: 3, After: true, Err: mine}, Fault{Op: OpStat})
		put := func(key string) error {
			_, err := evil.Put(t.Context(), key, strings.NewReader(key), int64(len(key)))
			return err
		}
		if err := put("1"); err != nil {
			t.Errorf("1st put: %v", err)
		}
		if err := put("2"); !errors.Is(err, ErrFault) {
			t.Errorf("2nd put: %v", err)
		}
		if err := put("3"); !errors.Is(err, mine) {
			t.Errorf("3rd put: %v", err)
		}
		if err := put("4"); err != nil {
			t.Errorf("4th put: %v", err)
		}
		for range 2 {
			if _, err := evil.Stat(t.Context(), "1"); !errors.Is(err, ErrFault) {
				t.Errorf("stat: %v", err)
			}
		}
		if got := Keys(t, evil, "", ""); !slices.Equal(got, []string{"1", "3", "4"}) {
			t.Errorf("list = %q", got)
		}
	})
}

func TestFaultyBreaksInTheMiddle(t *testing.T) {
	onEach(t, func(t *testing.T, s storage.Store) {
		for i := range 10 {
			Put(t, s, fmt.Sprintf("log/%d", i), []byte("0123456789"))
		}
		evil := Faulty(s, Fault{Op: OpGet, After: true}, Fault{Op: OpList, After: true})
		r, err := evil.Get(t.Context(), "log/1", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); string(data) != "01234" || !errors.Is(err, ErrFault) {
			t.Errorf("read %q, %v", data, err)
		}
		var keys []string
		var failed error
		for o, err := range evil.List(t.Context(), "", "") {
			if err != nil {
				failed = err
				continue
			}
			keys = append(keys, o.Key)
		}
		if len(keys) != 5 || !errors.Is(failed, ErrFault) {
			t.Errorf("listed %q, %v", keys, failed)
		}
	})
}

func TestStoppedAtEachCall(t *testing.T) {
	calls := []func(ctx context.Context, s storage.Store) error{
		func(ctx context.Context, s storage.Store) error {
			_, err := s.Put(ctx, "a", strings.NewReader("x"), 1)
			return err
		},
		func(ctx context.Context, s storage.Store) error { _, err := s.Stat(ctx, "a"); return err },
		func(ctx context.Context, s storage.Store) error { return s.Delete(ctx, "old") },
		func(ctx context.Context, s storage.Store) error {
			_, err := s.Put(ctx, "b", strings.NewReader("x"), 1)
			return err
		},
	}
	effects := [][]string{{"old"}, {"a", "old"}, {"a", "old"}, {"a"}, {"a", "b"}} // what is there after n calls
	onEach(t, func(t *testing.T, s storage.Store) {
		for _, after := range []bool{false, true} {
			n := 1
			for ; ; n++ {
				if err := s.Delete(t.Context(), "a", "b"); err != nil {
					t.Fatal(err)
				}
				Put(t, s, "old", nil)
				stop := &Stop{N: n, After: after}
				evil := Stopped(s, stop)
				done := 0
				for _, call := range calls {
					if err := call(t.Context(), evil); err == nil {
						done++
					} else if !errors.Is(err, ErrStopped) {
						t.Errorf("call %d: %v", n, err)
					}
				}
				if !stop.Reached() {
					break
				}
				effect := n - 1
				if after {
					effect = n
				}
				if got := Keys(t, s, "", ""); done != n-1 || !slices.Equal(got, effects[effect]) {
					t.Errorf("stopped at %d, after %v: %d calls worked, %q is there", n, after, done, got)
				}
			}
			if n != len(calls)+1 {
				t.Errorf("stopped at %d calls", n-1)
			}
		}
	})
}

func TestSlowDecidesTheOrder(t *testing.T) {
	onEach(t, func(t *testing.T, s storage.Store) {
		turn := make(chan struct{})
		slow := Slow(s, func(ctx context.Context, c Call) error {
			select {
			case <-turn:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		done := make(chan error)
		go func() {
			_, err := slow.Put(t.Context(), "a", strings.NewReader("x"), 1)
			done <- err
		}()
		if got := Keys(t, s, "", ""); len(got) != 0 {
			t.Errorf("put out of turn: %q", got)
		}
		turn <- struct{}{}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := Keys(t, s, "", ""); len(got) != 1 {
			t.Errorf("list = %q", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := slow.Stat(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("stat: %v", err)
		}
	})
}

func TestForgetful(t *testing.T) {
	onEach(t, func(t *testing.T, s storage.Store) {
		Put(t, s, "pack/a", []byte("a"))
		Put(t, s, "pack/b", []byte("b"))
		evil := Forgetful(s, func(key string) bool { return key == "pack/a" })
		if _, err := evil.Get(t.Context(), "pack/a", 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
		if _, err := evil.Stat(t.Context(), "pack/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
		if got := Keys(t, evil, "", ""); !slices.Equal(got, []string{"pack/b"}) {
			t.Errorf("list = %q", got)
		}
		if got := Get(t, evil, "pack/b"); string(got) != "b" {
			t.Errorf("got %q", got)
		}
		if l, ok := evil.(storage.Local); ok {
			if _, err := os.Stat(l.Path("pack/a")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("path: %v", err)
			}
		}
	})
}

func TestLying(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10)
	flipped := bytes.Clone(data)
	flipped[50] ^= 1
	zeros := make([]byte, 7)
	for _, tt := range []struct {
		name     string
		lie      Lie
		whole    []byte // what a read of everything gives
		part     []byte // what a read of [40, 60) gives
		file     []byte // what is in the file of a Local store
		statSize int64
	}{
		{"FlipBit", FlipBit, flipped, flipped[40:60], flipped, 100},
		{"CutOff", CutOff, data[:50], data[40:50], data[:50], 50},
		{"ShortRead", ShortRead, data[:50], data[40:50], data[:50], 100},
		{"LongRead", LongRead, append(bytes.Clone(data), zeros...), append(bytes.Clone(data[40:60]), zeros...), append(bytes.Clone(data), zeros...), 100},
		{"WrongSize", WrongSize, data, data[40:60], append(bytes.Clone(data), zeros...), 101},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, s storage.Store) {
				Put(t, s, "pack/a", data)
				Put(t, s, "pack/b", data)
				evil := Lying(t, s, tt.lie, func(key string) bool { return key == "pack/a" })
				if got := Get(t, evil, "pack/a"); !bytes.Equal(got, tt.whole) {
					t.Errorf("whole: %q", got)
				}
				if r, err := evil.Get(t.Context(), "pack/a", 40, 20); err != nil {
					t.Error(err)
				} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, tt.part) {
					t.Errorf("part: %q, %v", got, err)
				}
				if o, err := evil.Stat(t.Context(), "pack/a"); err != nil || o.Size != tt.statSize {
					t.Errorf("stat: %+v, %v", o, err)
				}
				for o, err := range evil.List(t.Context(), "pack/a", "") {
					if err != nil || o.Size != tt.statSize {
						t.Errorf("list: %+v, %v", o, err)
					}
				}
				if l, ok := evil.(storage.Local); ok {
					if got, err := os.ReadFile(l.Path("pack/a")); err != nil || !bytes.Equal(got, tt.file) {
						t.Errorf("file: %q, %v", got, err)
					}
				}
				if got := Get(t, evil, "pack/b"); !bytes.Equal(got, data) {
					t.Error("lied about another object")
				}
				if got := Get(t, s, "pack/a"); !bytes.Equal(got, data) {
					t.Error("damaged the object itself")
				}
			})
		})
	}
}

func TestLateListings(t *testing.T) {
	onEach(t, func(t *testing.T, s storage.Store) {
		c := &clock{at: time.Unix(1e9, 0)}
		evil := Late(s, time.Hour, c.now, rand.New(rand.NewPCG(3, 4)))
		Put(t, evil, "old", []byte("12"))
		c.add(2 * time.Hour)
		if err := evil.Delete(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
		Put(t, evil, "new", []byte("123"))
		c.add(30 * time.Minute)
		seen := map[string]bool{}
		for range 200 {
			seen[strings.Join(Keys(t, evil, "", ""), " ")] = true
		}
		if !seen["old"] || !seen["new"] || !seen["new old"] || !seen[""] || len(seen) != 4 {
			t.Errorf("seen: %v", seen)
		}
		if got := Get(t, evil, "new"); string(got) != "123" {
			t.Errorf("got %q", got)
		}
		c.add(31 * time.Minute)
		for range 200 {
			if got := Keys(t, evil, "", ""); !slices.Equal(got, []string{"new"}) {
				t.Fatalf("an hour later: %q", got)
			}
		}
	})
}

// TestEvilStoresCompose wraps each kind of evil store in each, and looks for the evil of both.
func TestEvilStoresCompose(t *testing.T) {
	type evil struct {
		name string
		wrap func(t *testing.T, s storage.Store, c *clock) storage.Store
		seen func(t *testing.T, s storage.Store) bool // whether a store that holds pack/a and pack/b shows it
	}
	evils := []evil{
		{"Faulty", func(t *testing.T, s storage.Store, _ *clock) storage.Store { return Faulty(s, Fault{Op: OpDelete}) },
			func(t *testing.T, s storage.Store) bool { return errors.Is(s.Delete(t.Context(), "none"), ErrFault) }},
		{"Slow", func(t *testing.T, s storage.Store, _ *clock) storage.Store {
			return Slow(s, func(ctx context.Context, c Call) error { return context.Cause(ctx) })
		}, func(t *testing.T, s storage.Store) bool {
			cause := errors.New("waited")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			_, err := s.Now(ctx)
			return errors.Is(err, cause)
		}},
		{"Late", func(t *testing.T, s storage.Store, c *clock) storage.Store {
			return Late(s, time.Hour, c.now, rand.New(rand.NewPCG(5, 6)))
		}, func(t *testing.T, s storage.Store) bool {
			Put(t, s, "log/late", nil)
			for range 50 {
				if len(Keys(t, s, "log/", "")) == 0 {
					return true
				}
			}
			return false
		}},
		{"Lying", func(t *testing.T, s storage.Store, _ *clock) storage.Store {
			return Lying(t, s, FlipBit, func(key string) bool { return key == "pack/a" })
		}, func(t *testing.T, s storage.Store) bool { return string(Get(t, s, "pack/a")) == "abbd" }},
		{"Forgetful", func(t *testing.T, s storage.Store, _ *clock) storage.Store {
			return Forgetful(s, func(key string) bool { return key == "pack/b" })
		}, func(t *testing.T, s storage.Store) bool { return len(Keys(t, s, "pack/", "")) == 1 }},
		{"Stopped", func(t *testing.T, s storage.Store, _ *clock) storage.Store { return Stopped(s, &Stop{N: 300}) },
			func(t *testing.T, s storage.Store) bool {
				for range 300 {
					if _, err := s.Stat(t.Context(), "pack/a"); errors.Is(err, ErrStopped) {
						return true
					}
				}
				return false
			}},
	}
	for i, inner := range evils {
		for j, outer := range evils {
			if i == j {
				continue
			}
			t.Run(outer.name+inner.name, func(t *testing.T) {
				onEach(t, func(t *testing.T, s storage.Store) {
					Put(t, s, "pack/a", []byte("abcd"))
					Put(t, s, "pack/b", []byte("efgh"))
					c := &clock{at: time.Unix(1e9, 0)}
					s = outer.wrap(t, inner.wrap(t, s, c), c)
					for _, e := range evils { // in this order, as Stopped ends everything
						if (e.name == inner.name || e.name == outer.name) && !e.seen(t, s) {
							t.Errorf("nothing is %s", e.name)
						}
					}
				})
			})
		}
	}
}
