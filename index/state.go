package index

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// state is the fold of all records of one experiment, but for what source keeps. Records may come in any order and more than once.
type state struct {
	ord int64
	id  replicate.ID

	row        version // of the experiment's record; zero if there is none yet
	deletedAt  int64   // store time of the last deletion, 0 if there was none
	lastSet    int64   // highest time of its Set records
	light      replicate.Experiment
	commits    int64  // living ones
	parts      []part // rows of it that are not in the tables
	rowSeqs    seqs   // of the commits that are
	hasRows    bool   // there are some, or rows of streams
	hasDeletes bool   // commits of it were deleted
	hasKilled  bool   // there are dead ones: what comes of the stream may be theirs
	latest     *Commit
	best       *Commit // by the primary metric as the process that folded saw it
	byCommit   spans   // over living commits
	byStream   spans   // over living rows of the metrics stream
	spans      []byte  // the two as they are in the doc, before readSpans
}

// version orders the records that say the same: the highest is believed.
type version struct {
	at   int64  // before of a row, at of a Set: store time
	hash uint64 // the first bytes of the BLAKE3 of the line
}

func (v version) less(w version) bool { return v.at < w.at || v.at == w.at && v.hash < w.hash }

func versionOf(at time.Time, hash replicate.Hash) version {
	return version{nanoseconds(at), binary.BigEndian.Uint64(hash[:])}
}

// killed reports whether a row is dead after a deletion.
func (v version) killed(deletedAt int64) bool {
	return deletedAt != 0 && v.at < deletedAt+int64(repository.LandWithin)
}

// nanoseconds since 1970, 0 for no time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}

func newState(id replicate.ID) *state {
	return &state{id: id, light: replicate.Experiment{ID: id}, byCommit: spans{}, byStream: spans{}}
}

// standing returns what is to be seen of the experiment. One whose record could not be read is there for the sake of its commits.
func (s *state) standing(isAlive bool) standing {
	switch {
	case s.row == version{} && (s.deletedAt != 0 || s.commits == 0):
		return hidden
	case s.row.killed(s.deletedAt):
		return deleted
	case isAlive:
		return alive
	}
	return silent
}

// addCommit takes a living commit in that was not there before.
func (s *state) addCommit(c *Commit, o *Options) {
	s.commits++
	s.byCommit.AddCommit(&c.Commit)
	if s.bestID(s.primary(o)) == c.ID {
		s.best = c
	}
	if s.latest == nil || compareCommits(s.latest, c) < 0 {
		s.latest = c
	}
}

// forgetCommits takes all commits out.
func (s *state) forgetCommits() {
	s.commits, s.latest, s.best, s.byCommit = 0, nil, nil, spans{}
}

// primary returns the metric that decides the best commit, nil without one.
func (s *state) primary(o *Options) *replicate.Metric {
	if s.light.Metric != nil {
		return s.light.Metric
	}
	if o.Primary && len(o.Metrics) > 0 {
		return &o.Metrics[0]
	}
	return nil
}

// bestIsOwn reports whether best is the best commit for every reader: the experiment says itself by which metric, or nobody does.
func (s *state) bestIsOwn(o *Options) bool { return s.light.Metric != nil || s.primary(o) == nil }

// bestID returns the id of the best commit, "" without one.
func (s *state) bestID(primary *replicate.Metric) replicate.ID {
	if s.spans != nil && s.best != nil && primary != nil {
		return s.best.ID
	}
	if primary == nil || s.byCommit[primary.Name] == nil {
		return ""
	}
	of := s.byCommit[primary.Name]
	best := of.Min
	if primary.Goal == replicate.Maximize {
		best = of.Max
	}
	if best == nil {
		return ""
	}
	return replicate.ID(best.By)
}

// summaries returns the metrics in order of name.
func (s *state) summaries(o *Options) []Metric {
	names := s.metricNames()
	metrics := make([]Metric, len(names))
	for i, name := range names {
		metrics[i] = Metric{name, s.goal(name, o), combine(s.byCommit[name], s.byStream[name])}
	}
	return metrics
}

// metricNames returns the names of all metrics in order.
func (s *state) metricNames() []string {
	names := make([]string, 0, len(s.byCommit)+len(s.byStream))
	for name := range s.byCommit {
		names = append(names, name)
	}
	for name := range s.byStream {
		if s.byCommit[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// goal returns the goal of a metric: the experiment's own, else the reader's.
func (s *state) goal(metric string, o *Options) replicate.Goal {
	if m := s.light.Metric; m != nil && m.Name == metric {
		return m.Goal
	}
	for _, m := range o.Metrics {
		if m.Name == metric {
			return m.Goal
		}
	}
	return ""
}

// entries appends what queries look at.
func (s *state) entries(entries []entry, number func(kind nameKind, name string) uint64) []entry {
	entries = s.builtinEntries(entries)
	e := &s.light
	if m := e.Metric; m != nil {
		primary := int64(number(metricName, m.Name)) << 1
		if m.Goal == replicate.Maximize {
			primary |= 1
		}
		entries = append(entries, entry{keyOf(primaryNumber, builtinField), replicate.Int(primary)})
	}
	for _, m := range e.Params.Flat(".") {
		entries = append(entries, entry{keyOf(number(paramName, m.Name), paramField), m.Value})
	}
	return s.metricEntries(entries, number)
}

// builtinEntries appends the values of the built-in names, as far as they are known, in order of number: what is sorted is sorted fast.
func (s *state) builtinEntries(entries []entry) []entry {
	e := &s.light
	add := func(number uint64, v replicate.Value, known bool) {
		if known {
			entries = append(entries, entry{keyOf(number, builtinField), v})
		}
	}
	text := func(number uint64, s string) { add(number, replicate.Text(s), s != "") }
	moment := func(number uint64, t time.Time) { add(number, replicate.Int(t.UnixNano()), !t.IsZero()) }
	text(idNumber, string(s.id))
	moment(createdNumber, s.created())
	text(statusNumber, string(e.Status))
	moment(endedNumber, e.Ended)
	text(nameNumber, e.Name)
	text(userNumber, e.User)
	text(hostNumber, e.Host)
	text(commandNumber, strings.Join(e.Command, " "))
	text(directoryNumber, e.Directory)
	var tags []replicate.Value
	for _, tag := range e.Tags {
		tags = append(tags, replicate.Text(tag))
	}
	add(tagNumber, replicate.List(tags), len(tags) > 0)
	text(noteNumber, e.Note)
	if s.latest != nil {
		add(stepNumber, replicate.Int(int64(s.latest.Step)), s.latest.Step != replicate.NoStep)
	}
	add(commitsNumber, replicate.Int(s.commits), true)
	if s.latest != nil {
		add(sizeNumber, replicate.Int(s.latest.Bytes), true)
	}
	text(parentNumber, string(e.Parent))
	if e.Python != nil {
		text(pythonNumber, e.Python.Version)
	}
	if e.Git != nil {
		text(gitCommitNumber, e.Git.Commit)
		text(gitBranchNumber, e.Git.Branch)
		add(gitDirtyNumber, replicate.Bool(e.Git.Dirty), true)
	}
	if e.Machine != nil {
		text(gpuNumber, strings.Join(slices.Compact(slices.Clone(e.Machine.GPUs)), ", "))
	}
	if e.ExitCode != nil {
		add(exitCodeNumber, replicate.Int(int64(*e.ExitCode)), true)
	}
	return entries
}

func (s *state) metricEntries(entries []entry, number func(kind nameKind, name string) uint64) []entry {
	add := func(name string) {
		n := number(metricName, name)
		for i, m := range winners(s.byCommit[name], s.byStream[name]) {
			if m != nil {
				entries = append(entries, entry{keyOf(n, firstField+field(i)), m.Value})
			}
		}
	}
	for _, name := range s.metricNames() {
		add(name)
	}
	return entries
}

// changed is when anything of the experiment last changed, as far as that is recorded.
func (s *state) changed() time.Time {
	t := s.created()
	for _, u := range []time.Time{s.light.Ended, timeOf(s.lastSet)} {
		if u.After(t) {
			t = u
		}
	}
	if s.latest != nil && s.latest.Time.After(t) {
		t = s.latest.Time
	}
	return t
}

// created is when the experiment began; where its record could not be read, the time of its newest commit.
func (s *state) created() time.Time {
	if s.light.Created.IsZero() && s.latest != nil {
		return s.latest.Time
	}
	return s.light.Created
}

// experiment returns the row of the index, with the best commit only if the process that folded saw the same primary metric.
func (s *state) experiment(o *Options, stands standing) *Experiment {
	e := &Experiment{Ord: s.ord, Experiment: s.light, Deleted: stands == deleted, Commits: s.commits, Latest: s.latest,
		Primary: s.primary(o), Metrics: s.summaries(o), LastSet: timeOf(s.lastSet), Changed: s.changed()}
	e.Created = s.created()
	e.Status = conclude(e.Status, stands)
	if s.latest != nil {
		e.Size = s.latest.Bytes
	}
	if s.best != nil && s.best.ID == s.bestID(e.Primary) {
		e.Best = s.best
	}
	return e
}
