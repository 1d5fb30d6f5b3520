package index

import (
	"slices"
	"time"

	"github.com/replicate/replicate"
)

// plan is what one List needs of every experiment: which keys to read from its blob, what they mean, and the test. It holds the
// values of one experiment at a time, so it serves one goroutine.
type plan struct {
	known    names
	goals    []replicate.Metric // the reader's
	now      time.Time
	deleted  bool // deleted experiments are asked for
	holds    predicate
	subjects []*accessor // the names of the query; those of filters come first
	filtered int         // how many are of filters
	rows     int         // how many were read

	keys    []key             // what is read, sorted
	slots   []replicate.Value // their values in the present row; one more, always null, for keys that are not read
	present []bool
	stands  standing          // of the present row
	values  []replicate.Value // of the subjects in the present row; null where missing

	created, status, ended, primary int // slots
}

// predicate says whether the present row of a plan belongs to the answer.
type predicate func(p *plan) bool

// accessor finds the value of one name of a query in the present row.
type accessor struct {
	text    string
	builtin *builtin
	slot    int      // of the built-in's key
	options []option // tried in order

	metricSeen, paramSeen bool // some row had it
}

// aggregate says which of the values of a metric is meant.
type aggregate int

const (
	plainOf aggregate = iota // best if it has a goal, else last
	firstOf
	lastOf
	minOf
	maxOf
	bestOf
)

// option is one thing a name may mean.
type option struct {
	number uint64
	slot   int // of the parameter, or of the metric's first; last, min and max follow
	metric bool
	of     aggregate
	path   []string       // into a list
	goal   replicate.Goal // the reader's, for a metric
}

// firstKey returns the lowest key that o reads.
func (o *option) firstKey() key {
	if o.metric {
		return keyOf(o.number, firstField)
	}
	return keyOf(o.number, paramField)
}

func newPlan(known names, goals []replicate.Metric, now time.Time) *plan {
	return &plan{known: known, goals: goals, now: now, holds: func(*plan) bool { return true }}
}

// access returns the place of a name among the subjects, adding it.
func (p *plan) access(text string) int {
	if i := slices.IndexFunc(p.subjects, func(a *accessor) bool { return a.text == text }); i >= 0 {
		return i
	}
	a := &accessor{text: text}
	a.builtin, a.options = p.known.meant(text)
	for i := range a.options {
		for _, m := range p.goals {
			if number, ok := p.known.metrics[m.Name]; ok && number == a.options[i].number {
				a.options[i].goal = m.Goal
			}
		}
	}
	p.subjects = append(p.subjects, a)
	return len(p.subjects) - 1
}

// ready decides what is read. No name may be added afterwards.
func (p *plan) ready() {
	p.keys = append(p.keys, keyOf(createdNumber, builtinField))
	for _, a := range p.subjects {
		p.keys = append(p.keys, a.keys()...)
	}
	slices.Sort(p.keys)
	p.keys = slices.Compact(p.keys)
	p.slots, p.present = make([]replicate.Value, len(p.keys)+1), make([]bool, len(p.keys)+1)
	p.values = make([]replicate.Value, len(p.subjects))
	p.created, p.status = p.slot(keyOf(createdNumber, builtinField)), p.slot(keyOf(statusNumber, builtinField))
	p.ended, p.primary = p.slot(keyOf(endedNumber, builtinField)), p.slot(keyOf(primaryNumber, builtinField))
	for _, a := range p.subjects {
		if a.builtin != nil {
			a.slot = p.slot(keyOf(a.builtin.number, builtinField))
		}
		for i := range a.options {
			a.options[i].slot = p.slot(a.options[i].firstKey())
		}
	}
}

// keys returns what a reads.
func (a *accessor) keys() []key {
	var keys []key
	if a.builtin != nil {
		keys = append(keys, keyOf(a.builtin.number, builtinField))
		if a.builtin.number == durationNumber {
			keys = append(keys, keyOf(statusNumber, builtinField), keyOf(endedNumber, builtinField))
		}
	}
	for i := range a.options {
		first := a.options[i].firstKey()
		keys = append(keys, first)
		if a.options[i].metric {
			keys = append(keys, keyOf(primaryNumber, builtinField), first+1, first+2, first+3)
		}
	}
	return keys
}

// slot returns the place of a key.
func (p *plan) slot(k key) int {
	if i, ok := slices.BinarySearch(p.keys, k); ok {
		return i
	}
	return len(p.keys)
}

// read makes the experiment of a blob the present row.
func (p *plan) read(blob []byte, stands standing) error {
	clear(p.slots)
	clear(p.present)
	r := blobReader{data: blob}
	for at, next := key(0), 0; len(r.data) > 0 && next < len(p.keys); {
		at += key(r.uvarint())
		for next < len(p.keys) && p.keys[next] < at {
			next++
		}
		if next < len(p.keys) && p.keys[next] == at {
			p.slots[next], p.present[next] = r.value(), true
			next++
		} else {
			r.skip()
		}
	}
	p.stands = stands
	for i, a := range p.subjects {
		p.values[i] = a.value(p)
	}
	return r.err
}

// value returns the value of a in the present row, null where it is missing.
func (a *accessor) value(p *plan) replicate.Value {
	var found replicate.Value
	have := false
	for i := range a.options {
		o := &a.options[i]
		v, ok := o.value(p)
		if !ok {
			continue
		}
		a.metricSeen = a.metricSeen || o.metric
		a.paramSeen = a.paramSeen || !o.metric
		if !have {
			found, have = v, true
		}
	}
	switch {
	case a.builtin == nil:
		return found
	case a.builtin.number == durationNumber:
		return p.duration()
	case a.builtin.number == statusNumber:
		return replicate.Text(string(p.concluded()))
	}
	return p.slots[a.slot]
}

// known reports whether the name is one that some row had.
func (a *accessor) known() bool { return a.builtin != nil || a.metricSeen || a.paramSeen }

// note says which was meant, if the rows left a doubt.
func (a *accessor) note() string {
	switch {
	case a.builtin != nil && a.metricSeen:
		return `"` + a.text + `" is built in and a metric: the built-in one was taken; metric.` + a.text + ` is the metric`
	case a.builtin != nil && a.paramSeen:
		return `"` + a.text + `" is built in and a parameter: the built-in one was taken; param.` + a.text + ` is the parameter`
	case a.metricSeen && a.paramSeen:
		return `"` + a.text + `" is a metric and a parameter: the metric was taken where there is one; metric.` + a.text + ` and param.` + a.text + ` say which`
	}
	return ""
}

// value returns what o finds in the present row, and whether the row has a metric or parameter of this name at all.
func (o *option) value(p *plan) (replicate.Value, bool) {
	if !o.metric {
		return descend(p.slots[o.slot], p.present[o.slot], o.path)
	}
	const first, last, minimum, maximum = 0, 1, 2, 3
	place := last
	switch o.of {
	case firstOf:
		place = first
	case minOf:
		place = minimum
	case maxOf:
		place = maximum
	case plainOf, bestOf:
		best := 0
		switch o.goalIn(p) {
		case replicate.Minimize:
			best = minimum
		case replicate.Maximize:
			best = maximum
		}
		switch {
		case best != 0 && (o.of == bestOf || p.present[o.slot+best]):
			place = best
		case o.of == bestOf:
			return replicate.Value{}, p.present[o.slot+last]
		}
	}
	return p.slots[o.slot+place], p.present[o.slot+last]
}

// goalIn returns the goal of a metric in the present row: the experiment's own, else the reader's.
func (o *option) goalIn(p *plan) replicate.Goal {
	if own, ok := p.slots[p.primary].Int64(); ok && uint64(own)>>1 == o.number {
		if own&1 == 1 {
			return replicate.Maximize
		}
		return replicate.Minimize
	}
	return o.goal
}

// descend follows a path into lists and maps.
func descend(v replicate.Value, ok bool, path []string) (replicate.Value, bool) {
	for _, step := range path {
		if list := v.List(); v.Kind() == replicate.ListKind {
			i, isIndex := parseIndex(step)
			if !isIndex || i >= len(list) {
				return replicate.Value{}, false
			}
			v = list[i]
		} else if v, ok = v.Map().Get(step); !ok {
			return replicate.Value{}, false
		}
	}
	return v, ok
}

// duration is how long the present experiment ran, in seconds; up to now if it runs, unknown if it is lost or the clocks of
// two machines make it negative.
func (p *plan) duration() replicate.Value {
	created, known := p.slots[p.created].Int64()
	end, ended := p.slots[p.ended].Int64()
	if !ended && p.concluded() == replicate.Running {
		end, ended = p.now.UnixNano(), true
	}
	if !known || !ended || end < created { // by clocks that differ
		return replicate.Value{}
	}
	return replicate.Float(time.Duration(end - created).Seconds())
}

// deletedStatus is what the query language calls a deleted experiment. It is no status of its own.
const deletedStatus replicate.Status = "deleted"

// standing is what the table knows of an experiment beside its records.
type standing int

const (
	hidden  standing = iota // nothing is known but that somebody spoke of it
	alive                   // its heartbeat is young
	silent                  // no heartbeat, or an old one
	deleted                 // it has no living row
)

func (p *plan) concluded() replicate.Status {
	if p.stands == deleted {
		return deletedStatus
	}
	return conclude(replicate.Status(p.slots[p.status].Text()), p.stands)
}

// conclude returns the status a reader concludes from the stored one and the heartbeat.
func conclude(stored replicate.Status, stands standing) replicate.Status {
	switch {
	case stored.Final(), stored == replicate.Detached: // nobody is expected to hear of a detached one
		return stored
	case stands != alive:
		return replicate.Lost
	case stored == "":
		return replicate.Running
	}
	return stored
}
