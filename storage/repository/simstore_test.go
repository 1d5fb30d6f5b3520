package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate/storage"
)

// errSimCrash is what a dead actor gets from its store.
var errSimCrash = errors.New("crashed")

// simEpoch is the time of tick 0.
var simEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func simTime(tick int64) time.Time { return simEpoch.Add(time.Duration(tick) * simTick) }

// A simListing is an object as a listing shows it.
type simListing = storage.Object

// A simStore is the store as one actor uses it: every call waits for a turn. It is where variants break rules.
type simStore struct{ a *simActor }

var _ storage.Store = (*simStore)(nil)

func (s *simStore) URL() string { return "sim://" + s.a.name }

// is reports whether the actor is one of those.
func (a *simActor) is(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(a.name, name) })
}

func (s *simStore) key(key string) string {
	if k, ok := s.a.alias[key]; ok {
		return k
	}
	return key
}

func (s *simStore) Get(_ context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := s.a.turn(); err != nil {
		return nil, err
	}
	o, ok := s.a.w.objects[s.key(key)]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, fs.ErrNotExist)
	}
	data := o.data
	if shown, lied := s.a.shown[key]; lied {
		data = shown
	}
	data = data[min(off, int64(len(data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (s *simStore) Stat(_ context.Context, key string) (storage.Object, error) {
	if s.a.unchecked() && strings.HasPrefix(key, packPrefix) {
		return storage.Object{Key: key}, nil
	}
	if err := s.a.turn(); err != nil {
		return storage.Object{}, err
	}
	o, ok := s.a.w.objects[s.key(key)]
	if s.a.early != nil && strings.HasPrefix(key, packPrefix) {
		ok = s.a.early[key]
	}
	if !ok {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, fs.ErrNotExist)
	}
	size := len(o.data)
	if shown, lied := s.a.shown[key]; lied {
		size = len(shown)
	}
	return storage.Object{Key: key, Size: int64(size), Time: simTime(o.mod)}, nil
}

func (s *simStore) Now(context.Context) (time.Time, error) {
	if err := s.a.turn(); err != nil {
		return time.Time{}, err
	}
	return simTime(s.a.w.now), nil
}

func (s *simStore) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	data := make([]byte, n)
	if _, err := io.ReadFull(body, data); err != nil {
		return time.Time{}, err
	}
	key, data, err := s.brokenPut(ctx, key, data)
	if err != nil {
		return time.Time{}, err
	}
	if err := s.a.turn(); err != nil {
		return time.Time{}, err
	}
	w := s.a.w
	o := simObject{data: data, mod: w.now}
	if w.late > 0 && !strings.HasPrefix(key, indexPrefix) {
		o.lag = w.r.Int63n(w.late)
	}
	if _, again := w.objects[key]; !again {
		w.folders[folderOf(key)]++
	}
	w.objects[key] = o
	w.changed = true
	w.trace("%s put %s", s.a.name, key)
	if isRecords(key) {
		w.decode(key, data)
	}
	return s.putTime(key, data), nil
}

// decode notes the records of an object.
func (w *simWorld) decode(key string, data []byte) {
	records, err := parseLog(key, data)
	if strings.HasPrefix(key, indexPrefix) {
		_, records, err = parseSegment(key, data)
	}
	if err != nil {
		w.failed("put %s: %v", key, err)
	}
	w.records[key] = records
}

func (s *simStore) Delete(_ context.Context, keys ...string) error {
	for _, key := range keys {
		if s.brokenDelete(key) {
			continue
		}
		if s.a.w.mut == "soundorder" && s.a.is("collector") && strings.HasPrefix(key, packPrefix) {
			s.a.stall()
		}
		if err := s.a.turn(); err != nil {
			return err
		}
		w := s.a.w
		if _, there := w.objects[key]; there {
			w.folders[folderOf(key)]--
			delete(w.objects, key)
			delete(w.records, key)
			w.changed = true
		}
		w.trace("%s del %s", s.a.name, key)
	}
	return nil
}

// List pages through a prefix. Each page is atomic, the whole is not. A folder of packs is rarely worth a turn.
func (s *simStore) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		objects, err := s.brokenList(ctx, prefix)
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		for _, o := range objects {
			if o.Key > after && !yield(o, nil) {
				return
			}
		}
	}
}

// pages lists a prefix page by page.
func (s *simStore) pages(prefix string) (objects []simListing, err error) {
	w, after := s.a.w, ""
	if strings.HasPrefix(prefix, packPrefix) && w.folders[prefix] == 0 {
		return nil, nil
	}
	for more := true; more; {
		rare := strings.HasPrefix(prefix, packPrefix) && w.r.Intn(8) > 0
		if !rare {
			if err := s.a.turn(); err != nil {
				return nil, err
			}
		}
		var page []string
		for key, o := range w.objects {
			if strings.HasPrefix(key, prefix) && key > after && o.mod+o.lag <= w.now {
				page = append(page, key)
			}
		}
		slices.Sort(page)
		if more = len(page) > w.page; more {
			page = page[:w.page]
		}
		for _, key := range page {
			o := w.objects[key]
			objects = append(objects, storage.Object{Key: key, Size: int64(len(o.data)), Time: s.listTime(key, o)})
			after = key
		}
		if more && w.mut == "samegen" && prefix == indexPrefix && s.a.is("reader") {
			s.a.stall()
		}
	}
	return objects, nil
}

// folderOf is the beginning of a key that listings ask for.
func folderOf(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }
