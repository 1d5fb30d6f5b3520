package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Merging moves records into fewer objects, so that a reader has to ask for few, and changes no meaning:
//
//	C1  take objects of one generation; the new records in log/ are generation 0
//	C2  get them all, passing over those that somebody else merged meanwhile
//	C3  a late record is believed, or the object that holds it is left where it is
//	C4  put what they say as objects of the next generation
//	C5  read the beginning of each back: it is there, and as long as it should be
//	C6  delete what was taken
//
// An object is deleted only by who put a superset of it and read that back, and records move to a higher generation only, which readers list
// later: so they meet them before or after, or both. Anybody may merge at any time; two who do waste work and nothing else.
const (
	// manyLogs is how many objects in log/ are too many: with a round trip of 30 ms a new reader has them in a fifth of a second.
	manyLogs = 256
	// manySegments is how many segments of one generation are too many: ten million records are 5 or 6 generations.
	manySegments = 8
	// largeSegment is the size from which a segment stays as it is.
	largeSegment = MaxObject / 2
	// lastGeneration is what one digit can say. Its segments stay as they are.
	lastGeneration = 9
	// maxInputs bounds the objects that one merge takes, as their names stand in the segment.
	maxInputs = 1 << 14
	// maxMerged bounds the stored bytes that one merge takes, two objects excepted: decoded they are ten times as large, and in memory.
	maxMerged = 16 << 20
	// mergeOneIn: of those who see that something should be merged one in 4 does it, after a while of up to mergeDelay, so that it is
	// rarely done twice.
	mergeOneIn = 4
	mergeDelay = 10 * time.Second
	// lookOneIn: who publishes commits looks once in so many of an experiment.
	lookOneIn = 64
)

// looksForMerges reports whether who published the commit of some number should look whether a merge is due.
func looksForMerges(seq int64) bool { return seq%lookOneIn == lookOneIn-1 }

// A crowd counts the objects of records by generation, as the last listing showed them: segments only if they are small.
type crowd [lastGeneration]atomic.Int64

// note takes in what a whole listing showed.
func (c *crowd) note(objects []storage.Object, generations ...int) {
	var n [lastGeneration]int64
	for _, o := range objects {
		if g, ok := mergeable(o); ok {
			n[g]++
		}
	}
	for _, g := range generations {
		c[g].Store(n[g])
	}
}

// mergeable returns the generation of an object that can be merged.
func mergeable(o storage.Object) (generation int, ok bool) {
	if isLogKey(o.Key) {
		return 0, true
	}
	generation, _, ok = parseIndexKey(o.Key)
	return generation, ok && generation < lastGeneration && o.Size < largeSegment
}

// due returns a generation with too many objects, the lowest.
func (c *crowd) due() (generation int, ok bool) {
	for g := range c {
		if c[g].Load() >= many(g) {
			return g, true
		}
	}
	return 0, false
}

func many(generation int) int64 {
	if generation == 0 {
		return manyLogs
	}
	return manySegments
}

// MergeDue reports whether the last Sync saw more objects of records than there should be.
func (r *Repository) MergeDue() bool {
	_, due := r.crowd.due()
	return due
}

// Merges are the merges of somebody who lives on: a writer, an uploader, a mount. The zero value is ready.
type Merges struct {
	mu     sync.Mutex // guards cancel and over
	cancel context.CancelFunc
	over   bool
	work   sync.WaitGroup
}

// Begin merges in the background if the last Sync saw that a merge is due: after some seconds, and one time in four, so that not everybody
// does who saw it. random decides. Errors are of no interest: somebody else will merge.
func (m *Merges) Begin(r *Repository, random io.Reader) {
	if delay, wanted := mergeDelayOf(random); wanted && r.MergeDue() {
		m.begin(func(ctx context.Context) { mergeAfter(ctx, r, delay) })
	}
}

// Look is Begin for who does not sync: it looks whether a merge is due.
func (m *Merges) Look(r *Repository, random io.Reader) {
	if delay, wanted := mergeDelayOf(random); wanted {
		m.begin(func(ctx context.Context) {
			if r.look(ctx) == nil && r.MergeDue() {
				mergeAfter(ctx, r, delay)
			}
		})
	}
}

func (m *Merges) begin(work func(context.Context)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over || m.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.work.Go(func() {
		work(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.cancel()
		m.cancel = nil
	})
}

func mergeAfter(ctx context.Context, r *Repository, delay time.Duration) {
	select {
	case <-time.After(delay):
		_ = r.Merge(ctx) // the next one tries again
	case <-ctx.Done():
	}
}

// Stop ends what is going on and begins nothing more.
func (m *Merges) Stop() {
	m.mu.Lock()
	m.over = true
	if m.cancel != nil {
		m.cancel()
	}
	m.mu.Unlock()
	m.work.Wait()
}

// mergeDelayOf says after which while to merge, if at all.
func mergeDelayOf(random io.Reader) (delay time.Duration, wanted bool) {
	var dice [8]byte
	if _, err := io.ReadFull(random, dice[:]); err != nil {
		return 0, false
	}
	n := binary.LittleEndian.Uint64(dice[:])
	return time.Duration(n / mergeOneIn % uint64(mergeDelay)), n%mergeOneIn == 0
}

// Merge moves records into fewer objects as long as there are more than there should be. It needs about ten times the memory of what
// it takes at once, which is 16 MiB. It may be interrupted at any time. What is damaged stays where it is.
func (r *Repository) Merge(ctx context.Context) error {
	for {
		if err := r.look(ctx); err != nil {
			return r.failed("merge", "", err)
		}
		g, due := r.crowd.due()
		if !due {
			return nil
		}
		before := r.crowd[g].Load()
		if err := r.mergeGeneration(ctx, g); err != nil {
			return r.failed("merge", "", err)
		}
		if r.crowd[g].Load() >= before {
			return nil // all that is left is damaged or doubtful
		}
	}
}

// look counts what could be merged.
func (r *Repository) look(ctx context.Context) error {
	for prefix, generations := range map[string][]int{logPrefix: {0}, indexPrefix: {1, 2, 3, 4, 5, 6, 7, 8}} {
		objects, err := r.list(ctx, prefix)
		if err != nil {
			return err
		}
		r.crowd.note(objects, generations...)
	}
	return nil
}

func (r *Repository) list(ctx context.Context, prefix string) (objects []storage.Object, err error) {
	for o, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// mergeGeneration merges what it finds in one generation, some at a time.
func (r *Repository) mergeGeneration(ctx context.Context, generation int) error {
	prefix := logPrefix
	if generation > 0 {
		prefix = generationPrefix(generation)
	}
	objects, err := r.list(ctx, prefix)
	if err != nil {
		return err
	}
	objects = slices.DeleteFunc(objects, func(o storage.Object) bool {
		_, ok := mergeable(o)
		return !ok
	})
	left := int64(len(objects))
	for len(objects) >= 2 {
		n := mergedAtOnce(objects)
		m := merger{repository: r, generation: generation, limit: MaxObject}
		if err := m.merge(ctx, objects[:n]); err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody else merged what this one put
			return err
		}
		left -= int64(m.deleted)
		objects = objects[n:]
	}
	r.crowd[generation].Store(left)
	return nil
}

// mergedAtOnce returns how many of the objects one merge takes, 2 at least.
func mergedAtOnce(objects []storage.Object) (n int) {
	total := int64(0)
	for n < min(len(objects), maxInputs) && (n < 2 || total+objects[n].Size <= maxMerged) {
		total += objects[n].Size
		n++
	}
	return n
}

// A merger is one merge.
type merger struct {
	repository *Repository
	generation int
	limit      int // bytes of an output

	records []Record // of what was taken
	late    map[replicate.Hash]bool
	taken   []string // keys
	deleted int      // how many of them
}

// merge takes objects of one generation, as they were listed.
func (m *merger) merge(ctx context.Context, objects []storage.Object) error {
	now, err := m.repository.store.Now(ctx)
	if err != nil {
		return err
	}
	if err := m.take(ctx, objects); err != nil || len(m.taken) == 0 {
		return err
	}
	m.drop(now.Add(-m.repository.timing.age))
	segments, err := m.segments(m.records, false)
	if err != nil {
		return err
	}
	for _, s := range segments {
		if _, err := m.repository.store.Put(ctx, s.key, bytes.NewReader(s.object), int64(len(s.object))); err != nil {
			return err
		}
	}
	for _, s := range segments {
		if err := m.confirm(ctx, s); err != nil {
			return err
		}
	}
	m.deleted = len(m.taken)
	return m.repository.deleteAll(ctx, m.taken)
}

// confirm is C5.
func (m *merger) confirm(ctx context.Context, s encodedSegment) error {
	o, err := m.repository.store.Stat(ctx, s.key)
	if err != nil {
		return err
	}
	if o.Size != int64(len(s.object)) {
		return replicate.Errorf(replicate.Corrupt, "%s has %d bytes, and %d were stored", s.key, o.Size, len(s.object))
	}
	first, err := readObject(ctx, m.repository.store, s.key, 0, int64(segmentFirst))
	if err == nil && !bytes.Equal(first, s.object[:segmentFirst]) {
		err = replicate.Errorf(replicate.Corrupt, "%s is not what was stored", s.key)
	}
	return err
}

// An encodedSegment is an object to be put.
type encodedSegment struct {
	key    string
	object []byte
}

// segments encodes records as one segment, or as several where that is too large. A part of what the inputs say must not pass for all of it.
func (m *merger) segments(records []Record, part bool) ([]encodedSegment, error) {
	if len(records) == 0 {
		return nil, nil
	}
	key, object, err := m.encode(records, part)
	if err == nil && (len(object) <= m.limit || len(records) == 1) {
		return []encodedSegment{{key, object}}, nil
	}
	if err != nil && (!errors.Is(err, errLargeSegment) || len(records) == 1) {
		return nil, err
	}
	a, b := halves(records)
	segments, err := m.segments(a, true)
	if err != nil {
		return nil, err
	}
	more, err := m.segments(b, true)
	return append(segments, more...), err
}

// encode encodes records as one segment: with digests, if it is one that is not read whole.
func (m *merger) encode(records []Record, part bool) (key string, object []byte, err error) {
	from := origin{inputs: m.taken, part: part}
	key, object, err = encodeOrigin(m.generation+1, records, from)
	if err != nil || len(object) <= wholeSegment {
		return key, object, err
	}
	digests, err := digestsOf(records)
	if err != nil {
		return "", nil, err
	}
	from.digests = true
	return encodeOrigin(m.generation+1, slices.Concat(records, digests), from)
}

// deleteAtOnce is how many objects one request deletes.
const deleteAtOnce = 1000

func (r *Repository) deleteAll(ctx context.Context, keys []string) error {
	for some := range slices.Chunk(keys, deleteAtOnce) {
		if err := r.store.Delete(ctx, some...); err != nil {
			return err
		}
	}
	return nil
}
