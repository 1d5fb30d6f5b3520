package repository

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"math"
	"slices"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// getsAtOnce is how many small objects are asked for at the same time: enough to hide a round trip of 30 ms.
	getsAtOnce = 64
	// logBytesAtOnce is how much of them is in memory at the same time, as it is stored: more than a link of 1 Gbit/s carries in a round trip of 100 ms,
	// and little enough that the first ones are parsed long before the last.
	logBytesAtOnce = 16 << 20
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
	objects, err := s.repository.list(ctx, logPrefix)
	if err != nil {
		return false, err
	}
	logs := s.unread(objects, 0)
	slices.SortStableFunc(logs, func(a, b storage.Object) int { return a.Time.Compare(b.Time) }) // whoever folds them meets an experiment once, not again and again
	segments, end := s.beside(ctx, indexPrefix)
	defer end()
	doomed := sync.OnceValues(func() (map[replicate.Hash]bool, error) { // asked after log/ was listed, if at all
		return s.repository.readDoomed(ctx)
	})
	if s.unjudged {
		doomed = nil
	}
	gone := len(s.gone)
	err = s.fetch(ctx, logs, limits{s.repository.atOnce(getsAtOnce), logBytesAtOnce}, func(ctx context.Context, o storage.Object, emit func(Batch)) error {
		return s.repository.readLog(ctx, o, doomed, emit)
	})
	if err != nil || s.stopped {
		return false, err
	}
	if objects, err = segments(); err != nil {
		return false, err
	}
	atOnce := segmentsAtOnce
	if s.whole != nil {
		atOnce = headsAtOnce
	}
	merged := s.unread(objects, 1, 2, 3, 4, 5, 6, 7, 8)
	err = s.fetch(ctx, merged, limits{s.repository.atOnce(atOnce), math.MaxInt64}, func(ctx context.Context, o storage.Object, emit func(Batch)) error {
		if s.whole != nil {
			return s.repository.readHead(ctx, o, s.whole, emit)
		}
		return s.repository.readSegment(ctx, o, s.known, emit)
	})
	return len(s.gone) > gone && !s.stopped, err
}

// beside lists a prefix while something else is being read. end is called when nobody waits for objects any more.
func (s *syncer) beside(ctx context.Context, prefix string) (objects func() ([]storage.Object, error), end func()) {
	ctx, cancel := context.WithCancel(ctx)
	objects = sync.OnceValues(func() ([]storage.Object, error) { return s.repository.list(ctx, prefix) })
	if s.repository.serial { // at once: what moves while records are read is then seen in neither, and needs another pass
		objects()
		return objects, cancel
	}
	var listing sync.WaitGroup
	listing.Go(func() { objects() })
	return objects, func() {
		cancel()
		listing.Wait()
	}
}

// unread returns the objects, of some generations, that are neither known nor read nor gone.
func (s *syncer) unread(objects []storage.Object, generations ...int) []storage.Object {
	s.repository.crowd.note(objects, generations...)
	return slices.DeleteFunc(objects, func(o storage.Object) bool {
		return !isRecords(o.Key) || s.done[o.Key] || s.gone[o.Key] || s.known(o.Key)
	})
}

// isRecords reports whether a key is that of an object of records. All others are ignored.
func isRecords(key string) bool {
	_, _, segment := parseIndexKey(key)
	return segment || isLogKey(key)
}

// A reader reads one object of records.
type reader func(ctx context.Context, o storage.Object, emit func(Batch)) error

// limits say how much is read at the same time.
type limits struct {
	objects int
	bytes   int64 // of the objects; one that is larger is read alone
}

// outcome is a part of an object, or how reading it ended.
type outcome struct {
	key   string
	size  int64 // of the object
	batch Batch
	ended bool
	err   error
}

// fetch reads objects in parallel and yields what is in them. An object that cannot be read for a reason of its own becomes a Batch
// with that error; an unreachable storage is returned.
func (s *syncer) fetch(ctx context.Context, objects []storage.Object, most limits, read reader) error {
	ctx, cancel := context.WithCancel(ctx)
	freed := make(chan int64, len(objects))
	outcomes := readAll(ctx, objects, most, freed, read)
	defer func() {
		cancel()
		for range outcomes { // until all readers have ended
		}
	}()
	for o := range outcomes {
		if o.ended {
			freed <- o.size
		}
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

// readAll reads objects, some at once. It is to be told of the size of each whose records are needed no more. The channel is closed when all
// readers have ended.
func readAll(ctx context.Context, objects []storage.Object, most limits, freed <-chan int64, read reader) <-chan outcome {
	outcomes := make(chan outcome, most.objects)
	send := func(o outcome) {
		select {
		case outcomes <- o:
		case <-ctx.Done():
		}
	}
	admitted := admit(ctx, objects, most.bytes, freed)
	var readers sync.WaitGroup
	for range min(most.objects, len(objects)) {
		readers.Go(func() {
			for o := range admitted {
				err := read(ctx, o, func(b Batch) { send(outcome{key: o.Key, batch: b}) })
				send(outcome{key: o.Key, size: o.Size, ended: true, err: err})
			}
		})
	}
	go func() {
		readers.Wait()
		close(outcomes)
	}()
	return outcomes
}

// admit yields objects, no more at a time than most bytes, or one.
func admit(ctx context.Context, objects []storage.Object, most int64, freed <-chan int64) <-chan storage.Object {
	admitted := make(chan storage.Object)
	go func() {
		defer close(admitted)
		held := int64(0)
		for _, o := range objects {
			for held > 0 && o.Size > most-held {
				select {
				case n := <-freed:
					held -= n
				case <-ctx.Done():
					return
				}
			}
			held += o.Size
			select {
			case admitted <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	return admitted
}
