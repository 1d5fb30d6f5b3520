package repository

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// getsAtOnce is how many small objects are asked for at the same time: enough to hide a round trip of 30 ms.
	getsAtOnce = 64
	// segmentsAtOnce is how many objects of up to 64 MiB are in memory at the same time. All cores decode each of them.
	segmentsAtOnce = 2
)

// A Batch is one object of records, or a part of a large one.
type Batch struct {
	Key     string   // log/… or index/…
	Inputs  []string // keys whose records this one includes, for an object that a merge made
	Records []Record // the accepted ones
	Err     error    // the object, or a part of it, is damaged: the error names it. Records holds what could be read
	Body    *Body    // of SyncHeads: where the rows are that Digests among the records speak of; else nil
	late    []Record // of a Sync that does not judge: rows that landed late
	// Settled reports that nothing more will ever come of Key, so that known may say so from now on. It is false in all but the last
	// part of an object, when Err is set, and when a record in it is late and may be believed later: those are asked for
	// again by the next Sync.
	Settled bool
}

// Sync yields every log and index object that known does not know, each with its accepted records, in no order. An error ends
// the iteration; a damaged object does not. Objects that a merge removes meanwhile are found in what it made.
//
// Records come again when an object was not settled, and when they are in two objects: whoever imports them must take a record
// twice without harm. known is called from several goroutines, also while a batch is being yielded.
func (r *Repository) Sync(ctx context.Context, known func(key string) bool) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		s := syncer{repository: r, known: known, yield: yield}
		if s.sync(ctx) && r.foreign != nil {
			r.syncForeign(ctx, known, yield)
		}
	}
}

// sync reports whether more is wanted.
func (s *syncer) sync(ctx context.Context) bool {
	s.done, s.gone = map[string]bool{}, map[string]bool{}
	for again := true; again; {
		var err error
		if again, err = s.pass(ctx); err != nil {
			s.yield(Batch{}, &replicate.Error{Op: "read", Path: s.repository.store.URL(), Kind: replicate.KindOf(err), Err: err})
			return false
		}
	}
	return !s.stopped
}

// A syncer is one call of Sync.
type syncer struct {
	repository *Repository
	known      func(key string) bool
	yield      func(Batch, error) bool
	whole      func(key string) bool // nil: segments are read whole
	unjudged   bool                  // late rows are passed on, not judged
	stopped    bool                  // yield has had enough
	done       map[string]bool       // read by this Sync
	gone       map[string]bool       // listed, but not there when asked for: a merge took it
}

// pass lists, and yields what is new. It reports whether another pass must look for records that moved meanwhile.
func (s *syncer) pass(ctx context.Context) (again bool, err error) {
	// log/ before index/, as records move from there to here: in the other order, one that moves in between is seen in neither.
	logs, err := s.list(ctx, logPrefix, 0)
	if err != nil {
		return false, err
	}
	segments, err := s.list(ctx, indexPrefix, 1, 2, 3, 4, 5, 6, 7, 8)
	if err != nil {
		return false, err
	}
	doomed := sync.OnceValues(func() (map[replicate.Hash]bool, error) { // asked after log/ was listed, if at all
		return s.repository.readDoomed(ctx)
	})
	if s.unjudged {
		doomed = nil
	}
	gone := len(s.gone)
	err = s.fetch(ctx, logs, s.repository.atOnce(getsAtOnce), func(ctx context.Context, o storage.Object, emit func(Batch)) error {
		return s.repository.readLog(ctx, o, doomed, emit)
	})
	if err != nil || s.stopped {
		return false, err
	}
	atOnce := segmentsAtOnce
	if s.whole != nil {
		atOnce = headsAtOnce
	}
	err = s.fetch(ctx, segments, s.repository.atOnce(atOnce), func(ctx context.Context, o storage.Object, emit func(Batch)) error {
		if s.whole != nil {
			return s.repository.readHead(ctx, o, s.whole, emit)
		}
		return s.repository.readSegment(ctx, o, s.known, emit)
	})
	return len(s.gone) > gone && !s.stopped, err
}

// list returns the objects below a prefix, where some generations are, that are neither known nor read nor gone.
func (s *syncer) list(ctx context.Context, prefix string, generations ...int) ([]storage.Object, error) {
	objects, err := s.repository.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	s.repository.crowd.note(objects, generations...)
	return slices.DeleteFunc(objects, func(o storage.Object) bool {
		return !isRecords(o.Key) || s.done[o.Key] || s.gone[o.Key] || s.known(o.Key)
	}), nil
}

// isRecords reports whether a key is that of an object of records. All others are ignored.
func isRecords(key string) bool {
	_, _, segment := parseIndexKey(key)
	return segment || isLogKey(key)
}

// A reader reads one object of records.
type reader func(ctx context.Context, o storage.Object, emit func(Batch)) error

// outcome is a part of an object, or how reading it ended.
type outcome struct {
	key   string
	batch Batch
	ended bool
	err   error
}

// fetch reads objects in parallel and yields what is in them. An object that cannot be read for a reason of its own becomes a Batch
// with that error; an unreachable storage is returned.
func (s *syncer) fetch(ctx context.Context, objects []storage.Object, atOnce int, read reader) error {
	ctx, cancel := context.WithCancel(ctx)
	outcomes := readAll(ctx, objects, atOnce, read)
	defer func() {
		cancel()
		for range outcomes { // until all readers have ended
		}
	}()
	for o := range outcomes {
		switch {
		case !o.ended:
		case o.err == nil:
			s.done[o.key] = true
			continue
		case errors.Is(o.err, fs.ErrNotExist):
			s.gone[o.key] = true
			continue
		case ctx.Err() != nil || replicate.KindOf(o.err) == replicate.Unavailable:
			return o.err
		default:
			s.done[o.key] = true
			o.batch = Batch{Key: o.key, Err: o.err}
		}
		if !s.yield(o.batch, nil) {
			s.stopped = true
			return nil
		}
	}
	return ctx.Err()
}

// readAll reads objects, some at once. The channel is closed when all readers have ended.
func readAll(ctx context.Context, objects []storage.Object, atOnce int, read reader) <-chan outcome {
	outcomes := make(chan outcome, atOnce)
	send := func(o outcome) {
		select {
		case outcomes <- o:
		case <-ctx.Done():
		}
	}
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(atOnce, len(objects)) {
		readers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(objects) {
					return
				}
				key := objects[i].Key
				err := read(ctx, objects[i], func(b Batch) { send(outcome{key: key, batch: b}) })
				send(outcome{key: key, ended: true, err: err})
			}
		})
	}
	go func() {
		readers.Wait()
		close(outcomes)
	}()
	return outcomes
}
