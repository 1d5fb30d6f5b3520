package index

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// encoded are the blobs of an experiment.
type encoded struct{ scan, doc, facts []byte }

// encodeShare is how many experiments a core takes at a time.
const encodeShare = 64

// encode makes the blobs of experiments on all cores: it is most of what folding costs.
func (f *fold) encode(ctx context.Context, all []*pending) ([]encoded, error) {
	if f.numbers == nil {
		known, err := readNames(ctx, f)
		if err != nil {
			return nil, err
		}
		f.numbers = &nameNumbers{known: [...]map[string]uint64{paramName: known.params, metricName: known.metrics}}
	}
	rows := make([]encoded, len(all))
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(all)+encodeShare-1)/encodeShare) {
		running.Go(func() {
			e := encoder{numbers: f.numbers}
			for to := int(next.Add(encodeShare)); to-encodeShare < len(all); to = int(next.Add(encodeShare)) {
				for i := to - encodeShare; i < min(to, len(all)); i++ {
					rows[i] = e.encode(all[i])
				}
			}
		})
	}
	running.Wait()
	return rows, f.writeNames(ctx)
}

// encoder makes blobs in one goroutine.
type encoder struct {
	numbers *nameNumbers
	entries []entry // room for those of one experiment
	blob    []byte  // room for one blob
	slab    []byte  // where blobs are
}

// slabSize is the room for some hundred blobs: one allocation for each costs as much as filling it.
const slabSize = 256 << 10

func (e *encoder) encode(p *pending) encoded {
	e.entries = p.entries(e.entries[:0], e.numbers.of)
	e.blob = appendEntries(e.blob[:0], e.entries)
	scan := e.keep()
	e.blob = p.appendTo(e.blob[:0])
	doc := e.keep()
	e.blob = p.facts.appendTo(e.blob[:0])
	return encoded{scan, doc, e.keep()}
}

// keep returns a copy of the blob.
func (e *encoder) keep() []byte {
	if len(e.blob) > cap(e.slab)-len(e.slab) {
		e.slab = make([]byte, 0, max(slabSize, len(e.blob)))
	}
	from := len(e.slab)
	e.slab = append(e.slab, e.blob...)
	return e.slab[from:len(e.slab):len(e.slab)]
}

// nameNumbers are the numbers of names in scan blobs. They are safe for use by several goroutines.
type nameNumbers struct {
	mu    sync.RWMutex // guards the rest
	known [2]map[string]uint64
	fresh []freshName
}

// freshName is a name that is not in the table.
type freshName struct {
	kind   nameKind
	name   string
	number uint64
}

// of returns the number of a name, giving it one if need be.
func (n *nameNumbers) of(kind nameKind, name string) uint64 {
	n.mu.RLock()
	number := n.known[kind][name]
	n.mu.RUnlock()
	if number != 0 {
		return number
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if number := n.known[kind][name]; number != 0 {
		return number
	}
	number = firstNumber + uint64(len(n.known[paramName])+len(n.known[metricName]))
	n.known[kind][name] = number
	n.fresh = append(n.fresh, freshName{kind, name, number})
	return number
}

// writeNames writes the names that are not in the table.
func (f *fold) writeNames(ctx context.Context) error {
	for _, n := range f.numbers.fresh {
		if err := f.exec(ctx, "INSERT INTO name (number, kind, name) VALUES (?, ?, ?)", int64(n.number), n.kind, n.name); err != nil {
			return err
		}
	}
	f.numbers.fresh = nil
	return nil
}
