package view

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/replicate/replicate/index"
)

// tallyFile is where a tally is kept in the cache. Its number changes with what is written.
const tallyFile = "sizes-1"

// A tally knows how long the tables of all experiments are without making them: how long each experiment's rows are, and which columns it
// has. What absent cells and the commas between them take is the same in every row. It is brought up to date by what changed, and kept in
// a file, as the first time takes as long as the tables.
type tally struct {
	path string

	mu     sync.Mutex // held while the tally is brought up to date: the others wait for the same
	loaded bool
	kept   kept
	rows   int64 // living
	cells  int64 // bytes of all cells
	lines  int64 // bytes of all lines of experiments.jsonl
	using  []int // experiments by set of columns
	sets   map[string]int32
}

// kept is what is in the file.
type kept struct {
	Instance int64
	Goals    string // decide what is best
	Version  int64  // of the index
	Sets     []columnSet
	Rows     []rowSize // by ordinal
}

// A rowSize is the length of an experiment's cells, without commas, and of its line. A line of 0 is no experiment.
type rowSize struct {
	Cells, Line int32
	Set         int32
}

// A columnSet is which parameters and metrics an experiment has, in order.
type columnSet struct{ Params, Metrics []string }

// A tableSize is what is known of the tables at one version of the index.
type tableSize struct {
	version    int64
	columns    columnSet // of all experiments
	csv, jsonl int64
}

// of is the size of one of the tables.
func (t tableSize) of(k kind) int64 {
	if k == experimentsCSV {
		return t.csv
	}
	return t.jsonl
}

// tables returns what is known of the tables, as new as a version at least.
func (v *View) tables(ctx context.Context, version int64) (tableSize, error) {
	t := &v.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	t.load(v.index.Instance(), v.goals())
	if t.kept.Version < version || version == 0 {
		before := t.kept.Version
		changed, err := t.update(ctx, v.index)
		if err != nil {
			t.reset() // a part of what changed is in it
			return tableSize{}, err
		}
		if before == 0 || changed > manyChanges {
			t.save()
		}
	}
	return t.size(), nil
}

func (v *View) goals() string {
	metrics, primary := v.index.Goals()
	return fmt.Sprint(metrics, primary)
}

// agree checks a rendered table against its size, which readers were told before.
func (v *View) agree(id ID, size int64) error {
	t := &v.tally
	t.mu.Lock()
	told := t.size()
	t.mu.Unlock()
	if k := kind(id.entry()); tableID(k, told.version) == id && told.of(k) != size {
		t.forget()
		return ErrStale
	}
	return nil
}

// forget begins anew: something is not as the tally says.
func (t *tally) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reset()
	_ = os.Remove(t.path)
}

func (t *tally) reset() {
	t.kept = kept{Instance: t.kept.Instance, Goals: t.kept.Goals}
	t.rows, t.cells, t.lines, t.using, t.sets = 0, 0, 0, nil, make(map[string]int32)
}

func (t *tally) load(instance int64, goals string) {
	if t.loaded {
		return
	}
	t.loaded = true
	t.kept.Instance, t.kept.Goals = instance, goals
	t.reset()
	data, err := os.ReadFile(t.path)
	if err != nil || len(data) < sha256.Size || sha256.Sum256(data[sha256.Size:]) != [sha256.Size]byte(data) {
		return
	}
	var k kept
	if gob.NewDecoder(bytes.NewReader(data[sha256.Size:])).Decode(&k) != nil || k.Instance != instance || k.Goals != goals {
		return
	}
	t.kept = k
	t.using = make([]int, len(k.Sets))
	for i, set := range k.Sets {
		t.sets[set.key()] = int32(i)
	}
	for _, r := range k.Rows {
		t.count(r, 1)
	}
}

// save keeps the tally for the next mount, behind its hash.
func (t *tally) save() {
	var data bytes.Buffer
	data.Write(make([]byte, sha256.Size))
	if gob.NewEncoder(&data).Encode(t.kept) != nil {
		return
	}
	sum := sha256.Sum256(data.Bytes()[sha256.Size:])
	copy(data.Bytes(), sum[:])
	f, err := os.CreateTemp(filepath.Dir(t.path), tallyFile+"-")
	if err != nil {
		return
	}
	_, err = f.Write(data.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), t.path)
	}
	if err != nil { // then the next mount takes longer
		_ = os.Remove(f.Name())
	}
}

// update takes in what changed, and returns how much that was.
func (t *tally) update(ctx context.Context, x Index) (changed int, err error) {
	m := newMeasure()
	gone, version, err := x.Each(ctx, t.kept.Version, func(e *index.Experiment) error {
		changed++
		cells, line, set := m.experiment(e)
		t.set(e.Ord, rowSize{Cells: int32(cells), Line: int32(line), Set: t.setNumber(set)})
		return nil
	})
	if err != nil {
		return changed, err
	}
	for _, ord := range gone {
		t.set(ord, rowSize{})
	}
	t.kept.Version = version
	return changed, nil
}

func (t *tally) set(ord int64, r rowSize) {
	if n := ord + 1 - int64(len(t.kept.Rows)); n > 0 {
		t.kept.Rows = append(t.kept.Rows, make([]rowSize, n)...)
	}
	t.count(t.kept.Rows[ord], -1)
	t.kept.Rows[ord] = r
	t.count(r, 1)
}

func (t *tally) count(r rowSize, by int64) {
	if r.Line == 0 {
		return
	}
	t.rows += by
	t.cells += by * int64(r.Cells)
	t.lines += by * int64(r.Line)
	t.using[r.Set] += int(by)
}

func (t *tally) setNumber(set columnSet) int32 {
	key := set.key()
	n, ok := t.sets[key]
	if !ok {
		n = int32(len(t.kept.Sets))
		t.sets[key] = n
		t.kept.Sets = append(t.kept.Sets, set)
		t.using = append(t.using, 0)
	}
	return n
}

// key tells sets apart.
func (c columnSet) key() string {
	var key []byte
	for _, name := range slices.Concat(c.Params, []string{""}, c.Metrics) {
		key = append(strconv.AppendInt(key, int64(len(name)), 10), ':')
		key = append(key, name...)
	}
	return string(key)
}

// size adds up.
func (t *tally) size() tableSize {
	isParam, isMetric := make(map[string]bool), make(map[string]bool)
	for i, n := range t.using {
		if n == 0 {
			continue
		}
		for _, name := range t.kept.Sets[i].Params {
			isParam[name] = true
		}
		for _, name := range t.kept.Sets[i].Metrics {
			isMetric[name] = true
		}
	}
	s := tableSize{version: t.kept.Version, jsonl: t.lines}
	s.columns = columnSet{slices.Sorted(maps.Keys(isParam)), slices.Sorted(maps.Keys(isMetric))}
	var header counter
	w := bufio.NewWriter(&header)
	(&table{w: w}).header(s.columns)
	_ = w.Flush()
	s.csv = int64(header) + t.cells + t.rows*int64(s.columns.width())
	return s
}

// A measure finds out how long rows are.
type measure struct {
	bytes counter
	w     *bufio.Writer
	line  []byte
}

// A counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func newMeasure() *measure {
	m := &measure{}
	m.w = bufio.NewWriter(&m.bytes)
	return m
}

// experiment returns the lengths of an experiment's cells and of its line, and its columns.
func (m *measure) experiment(e *index.Experiment) (cells, line int64, set columnSet) {
	flat := e.Params.Flat(".")
	set = columnSet{make([]string, 0, len(flat)), make([]string, 0, len(e.Metrics))}
	for _, p := range flat {
		set.Params = append(set.Params, p.Name)
	}
	for _, metric := range e.Metrics {
		set.Metrics = append(set.Metrics, metric.Name)
	}
	slices.Sort(set.Params)
	set.Params = slices.Compact(set.Params)
	m.bytes = 0
	(&table{w: m.w}).experiment(e, flat, set)
	_ = m.w.Flush()
	m.line = e.AppendJSON(m.line[:0])
	return int64(m.bytes) - int64(set.width()), int64(len(m.line)) + 1, set
}
