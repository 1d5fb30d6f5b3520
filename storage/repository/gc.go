package repository

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Garbage collection deletes packs that no living row needs, beside any number of writers and other collectors:
//
//	G0  delete void sentences in gc/, and condemned lists that have lapsed; carry out the valid sentences
//	G1  read all records; dead packs are those that none needs and that are older than AGE
//	G2  put a list of them: they are condemned, at the time of that object
//	G3  WAIT later, read all records again
//	G4  put a sentence: what was condemned then and is dead still
//	G5  delete the packs of the sentence, then the sentence
//
// Each step can be done by anybody, at any time, twice. Writers look for what is condemned or sentenced before they publish what needs a pack, and
// what they publish is there an hour later at the latest: so whoever looks again after WAIT sees everything that could need it.
//
// A condemned list lapses WAIT + SLOT after it was put, and no sentence on it is valid that lands later; it stays for an hour more. So the packs of a
// sentence were condemned without a gap until it was passed, whoever else did what meanwhile. In listings sentences stand behind condemned lists.
//
// On a disk of this machine alone the lock of landing.go tells a collector that nobody is between the check of packs and the record. Then G1, G3,
// G4 and G5 follow each other at once.

// GCOptions says how to collect.
type GCOptions struct {
	DryRun   bool                                  // look, and change nothing
	Random   io.Reader                             // names lists; nil: crypto/rand
	Progress func(doing string, done, total int64) // called by one goroutine at a time; may be nil
}

// Packs are some packs, and what they hold together.
type Packs struct {
	Count int64 `json:"packs"`
	Bytes int64 `json:"bytes"`
}

func (p *Packs) add(bytes int64) { p.Count, p.Bytes = p.Count+1, p.Bytes+bytes }

// A GCReport says what a collection did, or would have done. Needed, Young, Waiting, Condemned and Deleted are all packs that there were, each once.
type GCReport struct {
	Needed    Packs // by rows
	Young     Packs // needed by none, and not old enough to be condemned
	Condemned Packs // by this collection, or by a dry run that would have been one
	Waiting   Packs // condemned before
	Deleted   Packs

	AtOnce  bool      // packs need not be condemned first here
	Busy    bool      // they need not, but somebody was publishing all the time
	Due     time.Time // from when on the first of what is condemned can be deleted; zero if nothing is
	Until   time.Time // until when: later it must be condemned again
	YoungAt time.Time // when the first of what is young can be condemned; zero if nothing is
}

// GC does the steps of garbage collection that are due. It is safe beside everything else, may be interrupted at any time, and deletes nothing that a
// row needs, nor anything at all while some records cannot be read: the error is of kind Corrupt then.
func (r *Repository) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	if err := r.writable(); err != nil {
		return GCReport{}, err
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	c := &collector{repository: r, options: o, census: newCensus(r)}
	if err := c.collect(ctx); err != nil {
		return c.report, &replicate.Error{Op: "collect garbage in", Path: r.store.URL(), Kind: replicate.KindOf(err), Err: err, Hint: replicate.HintOf(err)}
	}
	return c.report, nil
}

// A collector is one garbage collection.
type collector struct {
	repository *Repository
	options    GCOptions
	report     GCReport
	census     *census

	sentences []*gcList                   // valid ones, passed before
	lists     []*gcList                   // condemned ones that have not lapsed
	dead      map[replicate.Hash]deadPack // packs that are there and that no row needs
	sizes     map[packMark]int64          // of the others, if somebody wants to know
}

type deadPack struct {
	size int64
	time time.Time
}

func (c *collector) collect(ctx context.Context) error {
	if err := c.settle(ctx); err != nil {
		return err
	}
	if err := c.look(ctx); err != nil {
		return err
	}
	if err := c.findDead(ctx); err != nil {
		return err
	}
	for _, sentence := range c.sentences {
		if err := c.carryOut(ctx, sentence); err != nil {
			return err
		}
	}
	if c.report.AtOnce = c.repository.canLock(); c.report.AtOnce {
		done, err := c.deleteNow(ctx)
		if done || err != nil {
			return err
		}
		c.report.Busy = true
	}
	return c.deleteInSteps(ctx)
}

// settle reads the lists and deletes those that nothing can follow any more.
func (c *collector) settle(ctx context.Context) error {
	r := c.repository
	now, err := r.store.Now(ctx)
	if err != nil {
		return err
	}
	objects, err := r.list(ctx, gcPrefix)
	if err != nil {
		return err
	}
	for _, o := range objects {
		list, err := r.readGCList(ctx, o)
		switch {
		case errors.Is(err, fs.ErrNotExist): // another collector is at work
			continue
		case err != nil:
			return err
		case list == nil:
			continue
		}
		switch {
		case list.sentence && !r.timing.lapsed(list.Condemned, o.Time):
			c.sentences = append(c.sentences, list)
		case list.sentence || r.timing.lapsed(list.Condemned, now.Add(-r.timing.lag)):
			err = c.delete(ctx, o.Key)
		case !r.timing.lapsed(list.Condemned, now):
			c.lists = append(c.lists, list)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) delete(ctx context.Context, key string) error {
	if c.options.DryRun {
		return nil
	}
	return c.repository.store.Delete(ctx, key)
}

// look reads the records that are new. With some that cannot be read nothing is known about what is needed.
func (c *collector) look(ctx context.Context) error {
	c.options.Progress("reading records", 0, 0)
	if err := c.census.look(ctx); err != nil {
		return err
	}
	if n := len(c.census.damage); n > 0 {
		return replicate.Errorf(replicate.Corrupt, "%d objects of records cannot be read, and what they need is not known, the first: %w", n, c.census.damage[0]).
			WithHint("replicate check names them; if they cannot be brought back, delete them: what only they speak of is lost")
	}
	return nil
}

// listsAtOnce is how many of the 256 folders of packs are listed side by side: ten million packs are 10,000 pages.
const listsAtOnce = 64

// findDead lists the packs and compares them with what is needed.
func (c *collector) findDead(ctx context.Context) error {
	needed := c.census.needed()
	c.dead = map[replicate.Hash]deadPack{}
	var mu sync.Mutex // guards the report, c.dead and done
	done := int64(0)
	return parallel(ctx, c.repository.atOnce(listsAtOnce), 256, func(ctx context.Context, i int) error {
		var live Packs
		sizes, dead := map[packMark]int64{}, map[replicate.Hash]deadPack{}
		for o, err := range c.repository.store.List(ctx, fmt.Sprintf("%s%02x/", packPrefix, i), "") {
			if err != nil {
				return err
			}
			name, ok := parsePackKey(o.Key)
			switch {
			case !ok:
			case needed[markOf(name)]:
				live.add(o.Size)
				if c.sizes != nil {
					sizes[markOf(name)] = o.Size
				}
			default:
				dead[name] = deadPack{o.Size, o.Time}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		c.report.Needed.Count += live.Count
		c.report.Needed.Bytes += live.Bytes
		maps.Copy(c.dead, dead)
		maps.Copy(c.sizes, sizes)
		done++
		c.options.Progress("listing packs", done, 256)
		return nil
	})
}

// deleteNow deletes what is dead while nobody publishes. It reports false, and has done nothing, if somebody always does.
func (c *collector) deleteNow(ctx context.Context) (done bool, err error) {
	if c.options.DryRun {
		for _, p := range c.dead {
			c.report.Deleted.add(p.size)
		}
		return true, nil
	}
	sentence, err := c.sentenceAlone(ctx)
	switch {
	case errors.Is(err, errBusy):
		return false, nil
	case sentence == nil || err != nil:
		return true, err
	}
	return true, c.carryOut(ctx, sentence)
}

// sentenceAlone looks again and puts a sentence on what is dead, all while nobody else is between the check of packs and their record. It
// returns nil if nothing is dead.
func (c *collector) sentenceAlone(ctx context.Context) (*gcList, error) {
	if len(c.dead) == 0 {
		return nil, nil
	}
	release, err := c.repository.nobodyLands(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := c.look(ctx); err != nil {
		return nil, err
	}
	needed := c.census.needed()
	maps.DeleteFunc(c.dead, func(p replicate.Hash, d deadPack) bool {
		if needed[markOf(p)] {
			c.report.Needed.add(d.size)
		}
		return needed[markOf(p)]
	})
	if len(c.dead) == 0 {
		return nil, nil
	}
	return c.put(ctx, &gcList{Condemned: c.census.at, packs: slices.Collect(maps.Keys(c.dead)), sentence: true})
}

// deleteInSteps does G3 to G5 for what was condemned before, and G2 for what is dead now.
func (c *collector) deleteInSteps(ctx context.Context) error {
	waiting := map[replicate.Hash]bool{}
	for _, list := range c.lists {
		if err := c.judge(ctx, list, waiting); err != nil {
			return err
		}
	}
	return c.condemn(ctx, waiting)
}

// judge passes a sentence on what is dead of a list that is due, and carries it out. Of one that is not it notes what is waiting.
func (c *collector) judge(ctx context.Context, list *gcList, waiting map[replicate.Hash]bool) error {
	t := c.repository.timing
	due := list.Condemned.Add(t.wait)
	list.packs = slices.DeleteFunc(list.packs, func(p replicate.Hash) bool {
		_, dead := c.dead[p]
		return !dead || waiting[p]
	})
	if len(list.packs) == 0 {
		return nil
	}
	if !c.census.at.Before(due) {
		return c.sentence(ctx, list)
	}
	for _, p := range list.packs {
		waiting[p] = true
		c.report.Waiting.add(c.dead[p].size)
	}
	c.noteDue(due)
	return nil
}

// noteDue takes in when something can be deleted.
func (c *collector) noteDue(due time.Time) {
	if c.report.Due.IsZero() || due.Before(c.report.Due) {
		c.report.Due, c.report.Until = due, due.Add(c.repository.timing.slot)
	}
}

func (c *collector) sentence(ctx context.Context, list *gcList) error {
	sentence := &gcList{Condemned: list.Condemned, packs: list.packs, sentence: true}
	if !c.options.DryRun {
		var err error
		if sentence, err = c.put(ctx, sentence); err != nil {
			return err
		}
		if c.repository.timing.lapsed(sentence.Condemned, sentence.object.Time) {
			return c.delete(ctx, sentence.object.Key) // it landed too late
		}
	}
	return c.carryOut(ctx, sentence)
}

// put stores a list of the packs given, and returns it as it is stored.
func (c *collector) put(ctx context.Context, list *gcList) (*gcList, error) {
	suffix := condemnedSuffix
	if list.sentence {
		suffix = sentenceSuffix
	}
	key, err := gcKey(c.options.Random, suffix)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.packs, func(a, b replicate.Hash) int { return bytes.Compare(a[:], b[:]) })
	data, err := list.encode()
	if err != nil {
		return nil, err
	}
	at, err := c.repository.store.Put(ctx, key, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	list.object = storage.Object{Key: key, Size: int64(len(data)), Time: at}
	if !list.sentence {
		list.Condemned = at
	}
	return list, nil
}

// condemn is G2.
func (c *collector) condemn(ctx context.Context, waiting map[replicate.Hash]bool) error {
	t := c.repository.timing
	var dead []replicate.Hash
	for name, p := range c.dead {
		old := p.time.Add(t.age)
		switch {
		case waiting[name]:
		case c.census.at.After(old):
			dead = append(dead, name)
			c.report.Condemned.add(p.size)
		default:
			c.report.Young.add(p.size)
			if c.report.YoungAt.IsZero() || old.Before(c.report.YoungAt) {
				c.report.YoungAt = old
			}
		}
	}
	if c.options.DryRun {
		return nil
	}
	slices.SortFunc(dead, func(a, b replicate.Hash) int { return bytes.Compare(a[:], b[:]) })
	for some := range slices.Chunk(dead, packsInList) {
		list, err := c.put(ctx, &gcList{packs: some})
		if err != nil {
			return err
		}
		c.noteDue(list.Condemned.Add(t.wait))
	}
	return nil
}

// deletesAtOnce is how many requests to delete packs are under way.
const deletesAtOnce = 4

// carryOut is G5. What is deleted is dead no more, but gone.
func (c *collector) carryOut(ctx context.Context, sentence *gcList) error {
	for _, p := range sentence.packs {
		if d, ok := c.dead[p]; ok {
			c.report.Deleted.add(d.size)
			delete(c.dead, p)
		}
	}
	if c.options.DryRun {
		return nil
	}
	var mu sync.Mutex // guards done
	done, total := int64(0), int64(len(sentence.packs))
	chunks := slices.Collect(slices.Chunk(sentence.packs, deleteAtOnce))
	err := parallel(ctx, c.repository.atOnce(deletesAtOnce), len(chunks), func(ctx context.Context, i int) error {
		keys := make([]string, len(chunks[i]))
		for k, p := range chunks[i] {
			keys[k] = packKey(p)
		}
		if err := c.repository.store.Delete(ctx, keys...); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		done += int64(len(keys))
		c.options.Progress("deleting packs", done, total)
		return nil
	})
	if err != nil {
		return err
	}
	return c.delete(ctx, sentence.object.Key)
}
