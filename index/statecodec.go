package index

import (
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// The doc blob of an experiment is its state, for tables and for the next fold. Nobody else reads it, so it has no version of
// its own: fileVersion covers it.

type blobWriter struct{ dst []byte }

func (w *blobWriter) uvarint(n uint64)        { w.dst = binary.AppendUvarint(w.dst, n) }
func (w *blobWriter) varint(n int64)          { w.dst = binary.AppendVarint(w.dst, n) }
func (w *blobWriter) text(s string)           { w.dst = appendText(w.dst, s) }
func (w *blobWriter) id(id replicate.ID)      { w.text(string(idBytes(id))) }
func (w *blobWriter) value(v replicate.Value) { w.dst = appendValue(w.dst, v) }

func (w *blobWriter) bool(b bool) {
	n := uint64(0)
	if b {
		n = 1
	}
	w.uvarint(n)
}

func (w *blobWriter) texts(list []string) {
	w.uvarint(uint64(len(list)))
	for _, s := range list {
		w.text(s)
	}
}

func (w *blobWriter) values(vs replicate.Values) {
	w.uvarint(uint64(len(vs)))
	for _, m := range vs {
		w.text(m.Name)
		w.value(m.Value)
	}
}

func (r *blobReader) bool() bool       { return r.uvarint() == 1 }
func (r *blobReader) id() replicate.ID { return idOf(r.bytes(r.uvarint())) }

// count reads the length of a list. Every element has a byte or more.
func (r *blobReader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *blobReader) texts() []string {
	n := r.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.text()
	}
	return list
}

func (r *blobReader) values() replicate.Values {
	vs := make(replicate.Values, r.count())
	for i := range vs {
		vs[i] = replicate.Member{Name: r.text(), Value: r.value()}
	}
	return vs
}

// idBytes and idOf convert between the hex digits of an id and its bytes.
func idBytes(id replicate.ID) []byte { b, _ := hex.DecodeString(string(id)); return b }
func idOf(b []byte) replicate.ID     { return replicate.ID(hex.EncodeToString(b)) }

func (s *state) appendTo(dst []byte) []byte {
	w := &blobWriter{dst}
	for _, n := range []int64{s.row.at, int64(s.row.hash), s.deletedAt, s.lastSet, s.commits} {
		w.varint(n)
	}
	w.bool(s.hasKilled)
	w.parts(s)
	w.experiment(&s.light)
	w.commit(s.latest)
	if s.best != nil && s.latest != nil && s.best.ID == s.latest.ID {
		w.bool(true)
	} else {
		w.bool(false)
		w.commit(s.best)
	}
	w.spans(s.byCommit)
	w.spans(s.byStream)
	return w.dst
}

// parseState reads all but the metrics, which are half of the work.
func parseState(ord int64, id replicate.ID, doc []byte) (*state, error) {
	r := &blobReader{data: doc}
	s := &state{ord: ord, id: id}
	s.row = version{r.varint(), uint64(r.varint())}
	s.deletedAt, s.lastSet, s.commits = r.varint(), r.varint(), r.varint()
	s.hasKilled = r.bool()
	r.parts(s)
	s.light = r.experiment()
	s.light.ID = id
	s.latest = r.commit(id)
	if r.bool() {
		s.best = s.latest
	} else {
		s.best = r.commit(id)
	}
	s.spans = r.data
	return s, r.err
}

func (w *blobWriter) parts(s *state) {
	for _, b := range []bool{s.hasRows, s.hasDeletes, s.rowSeqs.some} {
		w.bool(b)
	}
	w.varint(s.rowSeqs.from)
	w.varint(s.rowSeqs.to)
	w.uvarint(uint64(len(s.parts)))
	for _, p := range s.parts {
		for _, n := range []int64{p.segment, p.commits, p.from, p.to, p.earliest, p.after} {
			w.varint(n)
		}
	}
}

func (r *blobReader) parts(s *state) {
	s.hasRows, s.hasDeletes = r.bool(), r.bool()
	s.rowSeqs = seqs{r.bool(), r.varint(), r.varint()}
	if n := r.count(); n > 0 {
		s.parts = make([]part, n)
		for i := range s.parts {
			s.parts[i] = part{r.varint(), r.varint(), r.varint(), r.varint(), r.varint(), r.varint()}
		}
	}
}

// readSpans reads what parseState left.
func (s *state) readSpans() error {
	r := &blobReader{data: s.spans}
	s.byCommit, s.byStream, s.spans = r.spans(), r.spans(), nil
	return r.err
}

// experiment writes what light keeps of an experiment; its id stands elsewhere.
func (w *blobWriter) experiment(e *replicate.Experiment) {
	w.varint(nanoseconds(e.Created))
	w.varint(nanoseconds(e.Ended))
	for _, s := range []string{e.Name, e.User, e.Host, e.Directory, string(e.Status), e.Note} {
		w.text(s)
	}
	w.id(e.Parent)
	w.texts(e.Command)
	w.texts(e.Tags)
	w.values(e.Params)
	if w.bool(e.Metric != nil); e.Metric != nil {
		w.text(e.Metric.Name)
		w.text(string(e.Metric.Goal))
	}
	if w.bool(e.ExitCode != nil); e.ExitCode != nil {
		w.varint(int64(*e.ExitCode))
	}
	if w.bool(e.Failure != nil); e.Failure != nil {
		w.texts([]string{e.Failure.Type, e.Failure.Message})
	}
	if w.bool(e.Git != nil); e.Git != nil {
		w.texts([]string{e.Git.Commit, e.Git.Branch, e.Git.Remote})
		w.bool(e.Git.Dirty)
		w.varint(int64(e.Git.Files))
	}
	if w.bool(e.Python != nil); e.Python != nil {
		w.texts([]string{e.Python.Version, e.Python.Executable})
	}
	if w.bool(e.Machine != nil); e.Machine != nil {
		m := e.Machine
		w.texts([]string{m.OS, m.Kernel, m.CPU, m.Driver})
		w.texts(m.GPUs)
		w.varint(int64(m.Cores))
		w.varint(m.Memory)
	}
	if w.bool(e.Run != nil); e.Run != nil {
		w.texts([]string{e.Run.Target, e.Run.Image, e.Run.Detail})
	}
}

func (r *blobReader) experiment() replicate.Experiment {
	e := replicate.Experiment{Created: timeOf(r.varint()), Ended: timeOf(r.varint()),
		Name: r.text(), User: r.text(), Host: r.text(), Directory: r.text(), Status: replicate.Status(r.text()), Note: r.text(),
		Parent: r.id(), Command: r.texts(), Tags: r.texts(), Params: r.values()}
	if r.bool() {
		e.Metric = &replicate.Metric{Name: r.text(), Goal: replicate.Goal(r.text())}
	}
	if r.bool() {
		code := int(r.varint())
		e.ExitCode = &code
	}
	if r.bool() {
		t := r.some(2)
		e.Failure = &replicate.Failure{Type: t[0], Message: t[1]}
	}
	if r.bool() {
		t := r.some(3)
		e.Git = &replicate.Git{Commit: t[0], Branch: t[1], Remote: t[2], Dirty: r.bool(), Files: int(r.varint())}
	}
	if r.bool() {
		t := r.some(2)
		e.Python = &replicate.Python{Version: t[0], Executable: t[1]}
	}
	if r.bool() {
		t := r.some(4)
		e.Machine = &replicate.Machine{OS: t[0], Kernel: t[1], CPU: t[2], Driver: t[3],
			GPUs: r.texts(), Cores: int(r.varint()), Memory: r.varint()}
	}
	if r.bool() {
		t := r.some(3)
		e.Run = &replicate.Run{Target: t[0], Image: t[1], Detail: t[2]}
	}
	return e
}

// some reads a list that must have n texts.
func (r *blobReader) some(n int) []string {
	list := r.texts()
	if len(list) != n {
		r.fail()
		return make([]string, n)
	}
	return list
}

func (w *blobWriter) commit(c *Commit) {
	if w.bool(c != nil); c == nil {
		return
	}
	w.id(c.ID)
	w.id(c.Parent)
	for _, n := range []int64{c.Ord, c.Seq, nanoseconds(c.Time), int64(c.Step), c.Files, c.Bytes, c.Added} {
		w.varint(n)
	}
	w.text(c.Message)
	w.values(c.Metrics)
}

func (r *blobReader) commit(experiment replicate.ID) *Commit {
	if !r.bool() {
		return nil
	}
	c := &Commit{Commit: replicate.Commit{ID: r.id(), Experiment: experiment, Parent: r.id()}}
	c.Ord, c.Seq, c.Time, c.Step = r.varint(), r.varint(), timeOf(r.varint()), replicate.Step(r.varint())
	c.Files, c.Bytes, c.Added = r.varint(), r.varint(), r.varint()
	c.Message, c.Metrics = r.text(), r.values()
	return c
}

// origin is what many marks share.
type origin struct {
	at int64
	by string
}

// spans writes the origins once and marks with the place of their origin.
func (w *blobWriter) spans(s spans) {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	var origins origins
	for _, name := range names {
		marks := s[name].Marks()
		for i, m := range marks {
			if m != nil && sameMark(marks[:i], m) < 0 {
				origins.place(origin{m.At, m.By})
			}
		}
	}
	w.uvarint(uint64(len(origins.all)))
	for _, o := range origins.all {
		w.varint(o.at)
		w.text(o.by)
	}
	w.uvarint(uint64(len(names)))
	for _, name := range names {
		w.text(name)
		marks := s[name].Marks()
		for i, m := range marks {
			w.mark(m, marks[:i], &origins)
		}
	}
}

// origins is a list without repetition. Most are short.
type origins struct {
	all    []origin
	places map[origin]int // of a long one
}

// place returns the place of o, adding it.
func (l *origins) place(o origin) int {
	const short = 16
	if len(l.all) <= short {
		if i := slices.Index(l.all, o); i >= 0 {
			return i
		}
	} else if i, ok := l.places[o]; ok {
		return i
	}
	l.all = append(l.all, o)
	switch {
	case len(l.all) == short+1:
		l.places = make(map[origin]int, 2*short)
		for i, o := range l.all {
			l.places[o] = i
		}
	case len(l.all) > short:
		l.places[o] = len(l.all) - 1
	}
	return len(l.all) - 1
}

// A mark begins with 0 if it is nil, with the place, counted from 1, of one that was written before if it is the same, else with firstOrigin and the place
// of its origin. Of an experiment with one commit all four marks of a metric are the same.
const firstOrigin = 4

func (w *blobWriter) mark(m *repository.Mark, before []*repository.Mark, origins *origins) {
	if m == nil {
		w.uvarint(0)
		return
	}
	if i := sameMark(before, m); i >= 0 {
		w.uvarint(uint64(i) + 1)
		return
	}
	w.uvarint(firstOrigin + uint64(origins.place(origin{m.At, m.By})))
	w.varint(int64(m.Step))
	w.varint(m.N)
	w.value(m.Value)
}

// sameMark returns which of some marks is the same as m, -1 if none is.
func sameMark(marks []*repository.Mark, m *repository.Mark) int {
	return slices.IndexFunc(marks, func(o *repository.Mark) bool { return o == m || o != nil && *o == *m })
}

func (r *blobReader) spans() spans {
	origins := make([]origin, r.count())
	for i := range origins {
		origins[i] = origin{r.varint(), r.text()}
	}
	n := r.count()
	s := make(spans, n)
	all, marks := make([]repository.Span, n), make([]repository.Mark, 4*n) // two allocations instead of five a metric: a table has many
	for i := range all {
		name, room := r.text(), marks[4*i:]
		var of [4]*repository.Mark
		for j := range of {
			of[j] = r.mark(origins, of[:j], &room[j])
		}
		all[i] = repository.Span{First: of[0], Last: of[1], Min: of[2], Max: of[3]}
		s[name] = &all[i]
	}
	return s
}

// mark reads a mark into m and returns it, or one of those before, or nil.
func (r *blobReader) mark(origins []origin, before []*repository.Mark, m *repository.Mark) *repository.Mark {
	place := r.uvarint()
	switch {
	case place == 0:
		return nil
	case place <= uint64(len(before)):
		return before[place-1]
	case place < firstOrigin || place-firstOrigin >= uint64(len(origins)):
		r.fail()
		return nil
	}
	o := origins[place-firstOrigin]
	*m = repository.Mark{Step: replicate.Step(r.varint()), N: r.varint(), Value: r.value(), At: o.at, By: o.by}
	return m
}
