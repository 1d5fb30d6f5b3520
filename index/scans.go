package index

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"

	"github.com/replicate/replicate"
)

// What queries look at lies in groups: one row of the table scans has the scan blobs of groupSize neighbouring ordinals, each
//
//	uvarint(ord − the one before) uvarint(standing) uvarint(length) scan
//
// SQLite hands out a thousand large rows many times faster than a hundred thousand small ones.

// groupSize makes rows of some 50 kB: small enough to write one again for a change in it.
const groupSize = 128

// scanned is what queries look at of one experiment.
type scanned struct {
	ord    int64
	stands standing
	scan   []byte // nil in a change that keeps the one that is there
}

func groupOf(ord int64) int64 { return ord / groupSize }

func appendScanned(dst []byte, before int64, s scanned) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.ord-before))
	dst = binary.AppendUvarint(dst, uint64(s.stands))
	return append(binary.AppendUvarint(dst, uint64(len(s.scan))), s.scan...)
}

// next reads one experiment of a group. The scan blob stays part of the group.
func (r *blobReader) next(before int64) scanned {
	return scanned{before + int64(r.uvarint()), standing(r.uvarint()), r.bytes(r.uvarint())}
}

// writeScans writes changes, which are sorted by ordinal, into their groups.
func (f *fold) writeScans(ctx context.Context, changes []scanned) error {
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && groupOf(changes[n].ord) == groupOf(changes[0].ord) {
			n++
		}
		if err := f.writeGroup(ctx, groupOf(changes[0].ord), changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

func (f *fold) writeGroup(ctx context.Context, number int64, changes []scanned) error {
	var old []byte
	if number <= f.groups {
		if err := f.get(ctx, "SELECT scans FROM scans WHERE number = ?", number).Scan(&old); err != nil {
			return err
		}
	}
	group, err := mergeGroup(number, old, changes)
	if err != nil {
		return err
	}
	f.groups = max(f.groups, number)
	return f.exec(ctx, "INSERT OR REPLACE INTO scans (number, scans) VALUES (?, ?)", number, group)
}

// mergeGroup returns a group with the changes in it.
func mergeGroup(number int64, old []byte, changes []scanned) ([]byte, error) {
	size := len(old)
	for _, c := range changes {
		size += len(c.scan) + 2*binary.MaxVarintLen32
	}
	group := make([]byte, 0, size)
	last := number * groupSize
	put := func(s scanned) {
		group = appendScanned(group, last, s)
		last = s.ord
	}
	r := blobReader{data: old}
	for at := last; len(r.data) > 0; {
		s := r.next(at)
		at = s.ord
		for len(changes) > 0 && changes[0].ord < s.ord {
			put(changes[0])
			changes = changes[1:]
		}
		if len(changes) > 0 && changes[0].ord == s.ord {
			if s.stands = changes[0].stands; changes[0].scan != nil {
				s.scan = changes[0].scan
			}
			changes = changes[1:]
		}
		put(s)
	}
	for _, c := range changes {
		put(c)
	}
	return group, r.err
}

// scan returns the experiments for which p holds, with the value of one of its subjects, in no order. All cores look at groups while
// SQLite reads the next ones.
func (t *reading) scan(ctx context.Context, p *plan, by int) ([]found, error) {
	scanners := make([]groupScanner, runtime.GOMAXPROCS(0))
	groups := make(chan []driver.Value, len(scanners))
	var running sync.WaitGroup
	for i := range scanners {
		s := &scanners[i]
		s.plan, s.by = p.clone(), by
		running.Go(func() {
			for g := range groups {
				if s.err == nil {
					s.err = s.group(g[0].(int64), blobOf(g[1]))
				}
			}
		})
	}
	err := t.rows(ctx, 2, "SELECT number, scans FROM scans", func(row []driver.Value) error {
		groups <- []driver.Value{row[0], row[1]}
		return ctx.Err()
	})
	close(groups)
	running.Wait()
	var all []found
	for i := range scanners {
		err = errors.Join(err, scanners[i].err)
		all = append(all, scanners[i].found...)
		p.join(scanners[i].plan)
	}
	return all, err
}

// groupScanner looks for experiments in one goroutine's share of the groups.
type groupScanner struct {
	plan  *plan
	by    int
	found []found
	err   error
}

func (s *groupScanner) group(number int64, blob []byte) error {
	p := s.plan
	r := blobReader{data: blob}
	for last := number * groupSize; len(r.data) > 0; {
		row := r.next(last)
		last = row.ord
		if row.stands == hidden || row.stands == deleted && !p.deleted {
			continue
		}
		if err := p.read(row.scan, row.stands); err != nil {
			return err
		}
		p.rows++
		if p.holds(p) {
			created, _ := p.slots[p.created].Int64()
			s.found = append(s.found, found{row.ord, p.values[s.by], created, firstText(row.scan)})
		}
	}
	return r.err
}

// clone returns a plan of its own for another goroutine.
func (p *plan) clone() *plan {
	c := *p
	c.slots, c.present = make([]replicate.Value, len(p.slots)), make([]bool, len(p.present))
	c.values = make([]replicate.Value, len(p.values))
	c.subjects = make([]*accessor, len(p.subjects))
	for i, a := range p.subjects {
		own := *a
		c.subjects[i] = &own
	}
	return &c
}

// join takes in what a clone saw.
func (p *plan) join(c *plan) {
	p.rows += c.rows
	for i, a := range c.subjects {
		p.subjects[i].metricSeen = p.subjects[i].metricSeen || a.metricSeen
		p.subjects[i].paramSeen = p.subjects[i].paramSeen || a.paramSeen
	}
}
