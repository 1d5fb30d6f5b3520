package index

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// touch returns the state of an experiment for changing it; it is made if nobody spoke of the experiment before.
func (f *fold) touch(ctx context.Context, id replicate.ID) (*pending, error) {
	if p := f.pending[id]; p != nil {
		return p, nil
	}
	ord, err := f.ordOf(ctx, id)
	if err != nil {
		return nil, err
	}
	if ord != 0 {
		return f.load(ctx, ord)
	}
	f.experiments++
	p := &pending{state: newState(id), commitsHere: map[replicate.ID]*commitVersion{}, streamsHere: map[version]bool{},
		sourceLoaded: true}
	p.ord = f.experiments
	p.deletedAt, err = f.deletionOf(ctx, id)
	f.keep(p)
	return p, err
}

// ordOf returns the ordinal of an experiment in the tables, 0 if it is not there.
func (f *fold) ordOf(ctx context.Context, id replicate.ID) (ord int64, err error) {
	if f.written != nil {
		return f.written[id], nil
	}
	err = f.get(ctx, "SELECT ord FROM experiment WHERE id = ?", idBytes(id)).Scan(&ord)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return ord, err
}

// load reads the state of an experiment that is in the tables.
func (f *fold) load(ctx context.Context, ord int64) (*pending, error) {
	var id, doc []byte
	var stands standing
	err := f.get(ctx, "SELECT id, stands, doc FROM experiment JOIN doc USING (ord) WHERE ord = ?", ord).Scan(&id, &stands, &doc)
	if err != nil {
		return nil, err
	}
	s, err := parseState(ord, idOf(id), doc)
	if err == nil {
		err = s.readSpans()
	}
	if err != nil {
		return nil, err
	}
	p := &pending{state: s, stands: stands, doc: doc, oldParts: slices.Clone(s.parts)}
	f.keep(p)
	return p, nil
}

func (f *fold) keep(p *pending) { f.pending[p.id], f.byOrd[p.ord] = p, p }

// loadSource reads what light is made from.
func (f *fold) loadSource(ctx context.Context, p *pending) error {
	if p.sourceLoaded {
		return nil
	}
	var blob []byte
	err := f.get(ctx, "SELECT line, facts FROM doc WHERE ord = ?", p.ord).Scan(&p.line, &blob)
	if err == nil {
		p.facts, err = parseFacts(blob)
	}
	p.sourceLoaded = true
	return err
}

// deletionOf returns when an experiment or commit was deleted last, 0 if it never was.
func (f *fold) deletionOf(ctx context.Context, id replicate.ID) (at int64, err error) {
	if at, ok := f.deletedAt[id]; ok || !f.deletions {
		return at, nil
	}
	err = f.get(ctx, "SELECT at FROM deletion WHERE id = ?", idBytes(id)).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return at, err
}

// experiment takes an experiment's record in, if it is the newest.
func (f *fold) experiment(ctx context.Context, r *repository.Record) error {
	p, err := f.touch(ctx, r.Experiment.ID)
	if err != nil {
		return err
	}
	v := versionOf(r.Experiment.Before, r.Hash)
	if !p.row.less(v) {
		return nil
	}
	if err := f.loadSource(ctx, p); err != nil {
		return err
	}
	p.row, p.line, p.sourceChanged = v, r.Line, true
	p.light = r.Experiment.Experiment
	for _, known := range p.facts {
		if err := repository.SetField(&p.light, known.name, known.value); err != nil {
			return errBlob
		}
	}
	return nil
}

// set takes the fields of a Set in that are newer than what is known. A field whose value is nonsense is left out.
func (f *fold) set(ctx context.Context, r *repository.Record) (bad, err error) {
	p, err := f.touch(ctx, r.Set.Experiment)
	if err != nil {
		return nil, err
	}
	if err := f.loadSource(ctx, p); err != nil {
		return nil, err
	}
	v := versionOf(r.Set.At, r.Hash)
	p.lastSet = max(p.lastSet, v.at)
	for field, value := range factsOf(r.Set) {
		i, known := p.facts.find(field)
		if known && !p.facts[i].version.less(v) {
			continue
		}
		f.trial = p.light
		if err := repository.SetField(&f.trial, field.name, value); err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		if !known {
			p.facts = slices.Insert(p.facts, i, fact{factKey: field})
		}
		p.facts[i].version, p.facts[i].value = v, value
		p.light, p.sourceChanged = f.trial, true
	}
	return bad, nil
}

// addCommit takes a commit in, if it is new or a newer row of one that is known.
func (f *fold) addCommit(ctx context.Context, r *repository.Record) error {
	c := &r.Commit.Commit
	p, err := f.touch(ctx, c.Experiment)
	if err != nil {
		return err
	}
	v := versionOf(r.Commit.Before, r.Hash)
	known, err := f.knownCommit(ctx, p, c.ID)
	if err != nil || known != nil && !known.version.less(v) {
		return err
	}
	deletedAt, err := f.deletionOf(ctx, c.ID)
	if err != nil {
		return err
	}
	dead := v.killed(max(deletedAt, p.deletedAt))
	p.touched, p.hasRows = true, true
	if p.rowSeqs.add(c.Seq); len(p.parts) > 0 && p.mustFetch() {
		f.want(p)
	}
	if known != nil {
		p.rescan, known.version = true, v
		return f.exec(ctx, "UPDATE commits SET dead = ?, version = ?, at = ?, hash = ?, line = ? WHERE ord = ?",
			dead, f.next, v.at, int64(v.hash), r.Line, known.ord)
	}
	f.commits++
	f.pendingCommits++
	p.rescan = p.rescan || dead
	if !dead {
		p.addCommit(&Commit{Ord: f.commits, Commit: *c}, f.options)
	}
	if p.commitsHere != nil {
		p.commitsHere[c.ID] = &commitVersion{f.commits, v}
	}
	return f.insert(ctx, "commits (experiment, id, dead, version, at, hash, line)", // the next number is f.commits
		p.ord, idBytes(c.ID), dead, f.next, v.at, int64(v.hash), r.Line)
}

// knownCommit returns what is known of a commit of p, nil if it is new.
func (f *fold) knownCommit(ctx context.Context, p *pending, id replicate.ID) (*commitVersion, error) {
	if p.commitsHere != nil {
		return p.commitsHere[id], nil
	}
	var known commitVersion
	var hash int64
	err := f.get(ctx, "SELECT ord, at, hash FROM commits WHERE id = ? AND experiment = ?", idBytes(id), p.ord).
		Scan(&known.ord, &known.version.at, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	known.version.hash = uint64(hash)
	return &known, err
}

// stream takes a row of a stream in. Rows are only ever added: the repository knows which of them supersede others.
func (f *fold) stream(ctx context.Context, r *repository.Record) error {
	p, err := f.touch(ctx, r.Stream.Experiment)
	if err != nil {
		return err
	}
	v := versionOf(r.Stream.Before, r.Hash)
	known, err := f.knownStream(ctx, p, r.Stream.Stream, v)
	if err != nil || known {
		return err
	}
	err = f.insert(ctx, "stream (experiment, kind, hash, at, line)",
		p.ord, string(r.Stream.Stream), int64(v.hash), v.at, r.Line)
	if err != nil {
		return err
	}
	p.touched, p.hasRows = true, true
	switch {
	case r.Stream.Stream != repository.MetricsStream || v.killed(p.deletedAt):
	case p.hasKilled:
		p.rescan = true
	default:
		p.byStream.AddSummaries(r.Stream.Writer, r.Stream.Summary)
	}
	return nil
}

// knownStream reports whether a row of a stream was taken in before.
func (f *fold) knownStream(ctx context.Context, p *pending, kind repository.StreamKind, v version) (known bool, err error) {
	if p.streamsHere != nil {
		known = p.streamsHere[v]
		p.streamsHere[v] = true
		return known, nil
	}
	err = f.get(ctx, "SELECT EXISTS (SELECT 1 FROM stream WHERE experiment = ? AND kind = ? AND at = ? AND hash = ?)",
		p.ord, string(kind), v.at, int64(v.hash)).Scan(&known)
	return known, err
}

// delete notes a deletion; what it kills is found out when the experiment is written.
func (f *fold) delete(ctx context.Context, d *repository.Delete) error {
	known, err := f.deletionOf(ctx, d.ID)
	at := nanoseconds(d.At)
	if err != nil || at <= known {
		return err
	}
	f.deletions, f.deletedAt[d.ID] = true, at
	var of *pending
	var ord any
	if d.Experiment != "" {
		if of, err = f.touch(ctx, d.Experiment); err != nil {
			return err
		}
		of.hasDeletes, of.touched, of.rescan = true, true, true
		ord = of.ord
	}
	err = f.exec(ctx, "INSERT OR REPLACE INTO deletion (id, at, experiment) VALUES (?, ?, ?)", idBytes(d.ID), at, ord)
	if err != nil || of != nil {
		return err
	}
	hit, err := f.whatHas(ctx, d.ID)
	if err != nil {
		return err
	}
	for _, p := range hit {
		p.rescan = true
		if p.id == d.ID {
			p.deletedAt = at
		}
	}
	return nil
}

// whatHas returns the experiments that have an id, or a commit of that id.
func (f *fold) whatHas(ctx context.Context, id replicate.ID) ([]*pending, error) {
	ords, err := readOrds(f.query(ctx, "SELECT ord FROM experiment WHERE id = ?1 UNION SELECT experiment FROM commits WHERE id = ?1", idBytes(id)))
	if err != nil {
		return nil, err
	}
	var hit []*pending
	if p := f.pending[id]; p != nil {
		hit = append(hit, p)
	}
	for _, ord := range ords {
		p := f.byOrd[ord]
		if p == nil {
			if p, err = f.load(ctx, ord); err != nil {
				return nil, err
			}
		}
		if !slices.Contains(hit, p) {
			hit = append(hit, p)
		}
	}
	return hit, nil
}
