package recorder

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// maxCandidates is how many ids the error about an ambiguous prefix lists.
const maxCandidates = 5

// A standing is what the records say of one experiment, as far as another writer of it must know.
type standing struct {
	row     repository.ExperimentRow // the living one with the latest Before
	commits []repository.CommitRow

	facts map[string]fact // the fields of its Set records that are in force
	last  time.Time       // the highest At among them
	step  replicate.Step  // the highest in the streams, NoStep if there is none
}

// A fact is one field of an experiment and what decides whether another value of it is newer.
type fact struct {
	value []byte
	at    time.Time
	hash  replicate.Hash
}

// stand reads everything about the experiments that wanted asks for. It reads every record that the repository has.
func stand(ctx context.Context, r *repository.Repository, wanted func(replicate.ID) bool) (map[replicate.ID]*standing, error) {
	all := map[replicate.ID]*standing{}
	read, err := gather(ctx, r, func(string) bool { return false }, func(id replicate.ID) *standing {
		if all[id] == nil && wanted(id) {
			all[id] = newStanding()
		}
		return all[id]
	})
	if err != nil {
		return nil, err
	}
	for id, s := range all {
		s.bury(read.deletes)
		if s.row.ID == "" {
			delete(all, id) // its row is deleted, or not there yet
		}
	}
	return all, nil
}

func newStanding() *standing { return &standing{step: replicate.NoStep, facts: map[string]fact{}} }

// A reading is what was found in the records beside what stands.
type reading struct {
	deletes []repository.Delete
	settled []string // keys that need not be read again
}

// gather reads the records of all objects that are not known into the standings that of returns; nil is for experiments that nobody asks for.
func gather(ctx context.Context, r *repository.Repository, known func(string) bool, of func(replicate.ID) *standing) (reading, error) {
	var found reading
	for batch, err := range r.Sync(ctx, known) {
		if err != nil {
			return reading{}, fmt.Errorf("read the records: %w", err)
		}
		if batch.Settled {
			found.settled = append(found.settled, batch.Key)
		}
		for i := range batch.Records {
			record := &batch.Records[i]
			if record.Delete != nil {
				found.deletes = append(found.deletes, *record.Delete)
			} else if id := experimentOf(record); id != "" {
				if s := of(id); s != nil {
					s.add(record)
				}
			}
		}
	}
	return found, nil
}

func experimentOf(r *repository.Record) replicate.ID {
	switch {
	case r.Experiment != nil:
		return r.Experiment.ID
	case r.Commit != nil:
		return r.Commit.Experiment
	case r.Stream != nil:
		return r.Stream.Experiment
	case r.Set != nil:
		return r.Set.Experiment
	}
	return ""
}

func (s *standing) add(r *repository.Record) {
	switch {
	case r.Experiment != nil && (s.row.ID == "" || r.Experiment.Before.After(s.row.Before)):
		s.row = *r.Experiment
	case r.Commit != nil:
		s.commits = append(s.commits, *r.Commit)
	case r.Stream != nil:
		for _, summary := range r.Stream.Summary {
			if summary.Last != nil {
				s.step = max(s.step, summary.Last.Step)
			}
		}
	case r.Set != nil:
		if r.Set.At.After(s.last) {
			s.last = r.Set.At
		}
		for name, value := range r.Set.Fields {
			old, ok := s.facts[name]
			if !ok || r.Set.At.After(old.at) || r.Set.At.Equal(old.at) && slices.Compare(r.Hash[:], old.hash[:]) > 0 {
				s.facts[name] = fact{value, r.Set.At, r.Hash}
			}
		}
	}
}

// bury takes out what was deleted, and puts the facts in.
func (s *standing) bury(deletes []repository.Delete) {
	for _, d := range deletes {
		if d.ID == s.row.ID && d.Kills(s.row.Row) {
			s.row.ID = ""
			return
		}
		s.commits = slices.DeleteFunc(s.commits, func(c repository.CommitRow) bool { return c.ID == d.ID && d.Kills(c.Row) })
	}
	for name, f := range s.facts {
		_ = repository.SetField(&s.row.Experiment, name, f.value) // a damaged fact is an unknown one
	}
}

// resume says where another writer goes on.
func (s *standing) resume() repository.Resume {
	from := repository.Resume{Parent: s.row.Row, Step: s.step, At: s.last}
	for _, c := range s.commits {
		from.Step = max(from.Step, c.Step)
		from.Seq = max(from.Seq, c.Seq+1)
	}
	from.Standing = repository.Standing{Experiment: &s.row, Last: from.Step}
	if newest := s.newest(); newest != nil {
		from.Parent, from.ParentID, from.Newest = newest.Row, newest.ID, newest
	}
	return from
}

// newest returns the last commit: of several with one number the later one, as two writers made them. Nil if there is none.
func (s *standing) newest() *repository.CommitRow {
	var newest *repository.CommitRow
	for i := range s.commits {
		c := &s.commits[i]
		if newest == nil || c.Seq > newest.Seq || c.Seq == newest.Seq && c.Time.After(newest.Time) {
			newest = c
		}
	}
	return newest
}

// best returns the commit with the best value of the experiment's primary metric, else the newest one, else nil. NaN never wins, the
// first to reach a value does.
func (s *standing) best() *repository.CommitRow {
	metric := s.row.Metric
	if metric == nil {
		return s.newest()
	}
	slices.SortFunc(s.commits, func(a, b repository.CommitRow) int { return int(a.Seq - b.Seq) })
	var best *repository.CommitRow
	var value replicate.Value
	for i := range s.commits {
		v, ok := s.commits[i].Metrics.Get(metric.Name)
		if !ok || !v.IsNumber() || v.IsNaN() {
			continue
		}
		better, _ := v.Less(value)
		if metric.Goal == replicate.Maximize {
			better, _ = value.Less(v)
		}
		if best == nil || better {
			best, value = &s.commits[i], v
		}
	}
	if best == nil {
		return s.newest()
	}
	return best
}

// findExperiment returns the experiment that ref names: one that goes on on this machine, else one that the storage knows.
func (p *place) findExperiment(ctx context.Context, ref string) (*standing, error) {
	if id, err := replicate.ParseID(ref); err == nil {
		if st, ok := p.spool.Standing(id); ok {
			return standingOf(st), nil
		}
	}
	repo, asking, cancel, err := p.repository(ctx)
	var found *standing
	if err == nil {
		defer cancel()
		found, err = findExperiment(asking, repo, ref)
	}
	switch replicate.KindOf(err) {
	case replicate.NotFound, replicate.Unavailable: // what is known here may not be there yet
		var matches []*standing
		for _, st := range p.spool.Standings() {
			if matchesRef(ref, &st.Experiment.Experiment) {
				matches = append(matches, standingOf(st))
			}
		}
		if len(matches) > 0 {
			return only(ref, matches)
		}
	}
	return found, err
}

func standingOf(st repository.Standing) *standing {
	s := &standing{row: *st.Experiment, step: st.Last}
	if st.Newest != nil {
		s.commits = []repository.CommitRow{*st.Newest}
	}
	return s
}

func matchesRef(ref string, e *replicate.Experiment) bool {
	return replicate.IsPrefix(ref) && e.ID.HasPrefix(ref) || e.Name == ref && ref != ""
}

// findExperiment returns the experiment that ref names: its id, a unique prefix of it, or its exact name.
func findExperiment(ctx context.Context, r *repository.Repository, ref string) (*standing, error) {
	if id, err := replicate.ParseID(ref); err == nil {
		return recall(ctx, r, id)
	}
	all, err := stand(ctx, r, func(replicate.ID) bool { return true })
	if err != nil {
		return nil, err
	}
	var matches []*standing
	for _, s := range all {
		if matchesRef(ref, &s.row.Experiment) {
			matches = append(matches, s)
		}
	}
	return only(ref, matches)
}

func only(ref string, matches []*standing) (*standing, error) {
	switch len(matches) {
	case 0:
		return nil, notFound(ref)
	case 1:
		return matches[0], nil
	}
	slices.SortFunc(matches, func(a, b *standing) int { return b.row.Created.Compare(a.row.Created) })
	var candidates []string
	for _, s := range matches[:min(len(matches), maxCandidates)] {
		candidates = append(candidates, fmt.Sprintf("%s experiment, %s", s.row.ID.Short(), s.row.Created.Format(time.DateTime)))
	}
	return nil, replicate.Errorf(replicate.Ambiguous, "%s is ambiguous", ref).WithHint("%s", strings.Join(candidates, " · "))
}

func notFound(ref string) error {
	return replicate.Errorf(replicate.NotFound, "no experiment %q", ref).WithHint("replicate ls lists the experiments")
}

// findParent returns the commit that ref names: a commit's id or a unique prefix of one; an experiment stands for its best commit.
func findParent(ctx context.Context, r *repository.Repository, ref string) (replicate.ID, error) {
	all, err := stand(ctx, r, func(replicate.ID) bool { return true })
	if err != nil {
		return "", err
	}
	var ids []replicate.ID
	for id, s := range all {
		if replicate.IsPrefix(ref) && id.HasPrefix(ref) || s.row.Name == ref {
			if best := s.best(); best != nil {
				id = best.ID
			}
			ids = append(ids, id)
		}
		for _, c := range s.commits {
			if replicate.IsPrefix(ref) && c.ID.HasPrefix(ref) {
				ids = append(ids, c.ID)
			}
		}
	}
	slices.Sort(ids)
	switch ids = slices.Compact(ids); len(ids) {
	case 0:
		return "", replicate.Errorf(replicate.NotFound, "no commit %q to start from", ref)
	case 1:
		return ids[0], nil
	}
	return "", replicate.Errorf(replicate.Ambiguous, "%s is ambiguous", ref)
}

// findInterrupted returns the newest experiment with this command in this directory that is neither finished nor alive, or nil.
func findInterrupted(ctx context.Context, r *repository.Repository, command []string, directory string) (*standing, error) {
	all, err := stand(ctx, r, func(replicate.ID) bool { return true })
	if err != nil {
		return nil, err
	}
	beats, err := r.Heartbeats(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the heartbeats: %w", err)
	}
	var newest *standing
	for id, s := range all {
		age, beating := beats[id]
		alive := !s.row.Status.Final() && beating && age < replicate.LostAfter
		same := slices.Equal(s.row.Command, command) && s.row.Directory == directory
		if same && !alive && s.row.Status != replicate.Finished && (newest == nil || s.row.Created.After(newest.row.Created)) {
			newest = s
		}
	}
	return newest, nil
}
