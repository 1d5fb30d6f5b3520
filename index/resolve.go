package index

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// Resolve finds what a person typed: a unique prefix of an experiment or a commit, an exact name, EXP@best, EXP@latest, EXP@12 (step),
// @latest. Errors are NotFound, or Ambiguous with the candidates as the hint.
func (x *Index) Resolve(ctx context.Context, ref string) (Target, error) {
	return x.resolve(ctx, ref, living)
}

// ResolveDeleted is Resolve among what was deleted: experiments, and commits of living and of deleted ones.
func (x *Index) ResolveDeleted(ctx context.Context, ref string) (Target, error) {
	return x.resolve(ctx, ref, dead)
}

func (x *Index) resolve(ctx context.Context, ref string, among scope) (target Target, err error) {
	for i := range len(ref) + 1 { // EXP in EXP@best may be a commit too
		if i == len(ref) || ref[i] == '@' {
			if err := x.searchFor(ctx, ref[:i]); err != nil {
				return target, err
			}
		}
	}
	err = x.readWhole(ctx, "find", func(t *reading) error {
		if target, err = (&search{t, among}).resolve(ctx, ref); err != nil {
			return err
		}
		return t.complete()
	})
	return target, err
}

// scope is what a search looks among, as conditions of SQL.
type scope struct{ experiments, commits string }

var (
	living = scope{"stands IN (1, 2)", "NOT dead AND stands IN (1, 2)"}
	dead   = scope{"stands = 3", "(dead OR stands = 3)"}
)

// search is a reading that resolves.
type search struct {
	*reading
	among scope
}

func (t *search) resolve(ctx context.Context, ref string) (Target, error) {
	if ref == "" {
		return Target{}, replicate.Errorf(replicate.Usage, "an id or name must not be empty")
	}
	if ref == "@latest" {
		return t.newest(ctx)
	}
	found, err := t.candidates(ctx, ref)
	if err != nil {
		return Target{}, err
	}
	at := strings.LastIndexByte(ref, '@')
	switch {
	case len(found) == 1:
		return t.complete(ctx, found[0])
	case len(found) > 1:
		return Target{}, replicate.Errorf(replicate.Ambiguous, "%s is ambiguous", ref).WithHint("%s", t.describe(found))
	case at < 0 || at == 0:
		return Target{}, t.unknown(ctx, ref)
	}
	of, err := t.resolve(ctx, ref[:at])
	if err != nil {
		return Target{}, err
	}
	return t.commitOf(ctx, of, ref[:at], ref[at+1:])
}

// newest returns the experiment that was created last.
func (t *search) newest(ctx context.Context) (Target, error) {
	states, err := t.states(ctx, t.among.experiments+" ORDER BY created DESC, id DESC LIMIT 1")
	if err != nil {
		return Target{}, err
	}
	if len(states) == 0 {
		return Target{}, notFound("there are no experiments yet")
	}
	return t.complete(ctx, candidate{experiment: states[0]})
}

// candidate is something an id may stand for: a commit, or an experiment.
type candidate struct {
	experiment stored
	commit     *Commit
}

func (c candidate) id() replicate.ID {
	if c.commit != nil {
		return c.commit.ID
	}
	return c.experiment.id
}

// complete reads what of a target was not read to find it.
func (t *search) complete(ctx context.Context, c candidate) (Target, error) {
	target := Target{Commit: c.commit}
	if c.commit != nil {
		states, err := t.states(ctx, "stands != 0 AND id = ?", idBytes(c.commit.Experiment))
		if err != nil || len(states) == 0 {
			return Target{}, err
		}
		c.experiment = states[0]
	}
	var err error
	target.Experiment, err = t.whole(ctx, c.experiment)
	return target, err
}

// maxCandidates is how many candidates are read. People see fewer.
const maxCandidates = 100

// candidates returns everything with a prefix, and every experiment of a name.
func (t *search) candidates(ctx context.Context, ref string) ([]candidate, error) {
	states, err := t.states(ctx, t.among.experiments+" AND name = ? AND name != '' ORDER BY created DESC LIMIT ?", ref, int64(maxCandidates))
	if err != nil {
		return nil, err
	}
	var commits []*Commit
	if from, to, ok := idRange(ref); ok {
		byID, err := t.states(ctx, t.among.experiments+" AND id BETWEEN ? AND ? LIMIT ?", from, to, int64(maxCandidates))
		if err != nil {
			return nil, err
		}
		for _, s := range byID {
			if !slices.ContainsFunc(states, func(o stored) bool { return o.ord == s.ord }) {
				states = append(states, s)
			}
		}
		if commits, err = t.commits(ctx, t.among.commits+" AND commits.id BETWEEN ? AND ? LIMIT ?", from, to, maxCandidates); err != nil {
			return nil, err
		}
	}
	var all []candidate
	for _, s := range states {
		all = append(all, candidate{experiment: s})
	}
	for _, c := range commits {
		all = append(all, candidate{commit: c})
	}
	return all, nil
}

// idRange returns the lowest and the highest id with a prefix. Longer ids lie within as well.
func idRange(prefix string) (from, to []byte, ok bool) {
	prefix = strings.ToLower(prefix)
	if !replicate.IsPrefix(prefix) {
		return nil, nil, false
	}
	const longest = 64
	from = idBytes(replicate.ID(prefix + strings.Repeat("0", len(prefix)%2)))
	return from, idBytes(replicate.ID(prefix + strings.Repeat("f", longest-len(prefix)))), true
}

// shownCandidates is how many candidates fit a line.
const shownCandidates = 8

// describe lists candidates: "49668cb experiment, 2 minutes ago · 4c60398 commit, step 3".
func (t *search) describe(all []candidate) string {
	slices.SortStableFunc(all, func(a, b candidate) int { return strings.Compare(string(a.id()), string(b.id())) })
	digits := replicate.ShortLen
	for i := 1; i < len(all); i++ {
		for digits < len(all[i].id()) && all[i].id().HasPrefix(string(all[i-1].id()[:min(digits, len(all[i-1].id()))])) && all[i].id() != all[i-1].id() {
			digits++
		}
	}
	var parts []string
	for _, c := range all[:min(len(all), shownCandidates)] {
		parts = append(parts, string(c.id()[:min(digits, len(c.id()))])+" "+t.describeOne(c))
	}
	switch more := len(all) - shownCandidates; {
	case len(all) == 2*maxCandidates || more > maxCandidates:
		parts = append(parts, "and many more")
	case more > 0:
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, " · ")
}

func (t *search) describeOne(c candidate) string {
	if c.commit == nil {
		text := "experiment"
		if name := c.experiment.light.Name; name != "" {
			text += " " + strconv.Quote(name)
		}
		return text + ", " + ago(c.experiment.created(), t.options.Now())
	}
	if c.commit.Step == replicate.NoStep {
		return "commit, " + ago(c.commit.Time, t.options.Now())
	}
	return fmt.Sprintf("commit, step %d", c.commit.Step)
}

// commitOf returns the commit of an experiment that stands behind an @: best, latest or a step.
func (t *search) commitOf(ctx context.Context, of Target, ref, which string) (Target, error) {
	if of.Commit != nil {
		return Target{}, replicate.Errorf(replicate.Usage, "%s is a commit, so @%s has no meaning", ref, which)
	}
	switch which {
	case "best":
		if of.Commit = of.Experiment.Best; of.Commit == nil {
			return Target{}, notFound("%s has no best commit", ref).WithHint("a primary metric decides: metric=(\"loss\", \"minimize\"), or metrics in replicate.yaml")
		}
		return of, nil
	case "latest":
		if of.Commit = of.Experiment.Latest; of.Commit == nil {
			return Target{}, notFound("%s has no commits", ref)
		}
		return of, nil
	}
	step, err := strconv.ParseInt(which, 10, 64)
	if err != nil {
		return Target{}, notFound("%s@%s is unknown", ref, which).WithHint("behind @ stands best, latest or a step")
	}
	if err := t.wantAll(ctx, "ord = ?", of.Experiment.Ord); err != nil {
		return Target{}, err
	}
	all, err := t.commits(ctx, t.among.commits+" AND experiment.ord = ?", of.Experiment.Ord)
	if err != nil {
		return Target{}, err
	}
	slices.SortFunc(all, compareCommits)
	for _, c := range slices.Backward(all) {
		if c.Step == replicate.Step(step) {
			of.Commit = c
			return of, nil
		}
	}
	return Target{}, notFound("%s has no commit of step %d", ref, step).WithHint("%s", steps(all))
}

// steps says which steps there are.
func steps(all []*Commit) string {
	if len(all) == 0 {
		return "it has no commits"
	}
	first, last := all[0].Step, all[0].Step
	for _, c := range all {
		first, last = min(first, c.Step), max(last, c.Step)
	}
	if first == last {
		return fmt.Sprintf("its commits have step %d", first)
	}
	return fmt.Sprintf("its %d commits have steps from %d to %d", len(all), first, last)
}

// unknown is the error for what nothing answers to.
func (t *search) unknown(ctx context.Context, ref string) error {
	err := notFound("no experiment or commit %s", ref)
	rows, queryErr := t.query(ctx, "SELECT DISTINCT name FROM experiment WHERE name != '' AND "+t.among.experiments)
	if queryErr != nil {
		return queryErr
	}
	defer rows.Close()
	var known []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		known = append(known, name)
	}
	if near := replicate.Nearest(ref, known); near != "" {
		err.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	return err
}

// ago says how long ago a time was: "40 seconds ago" up to 30 days, then the date in the zone of now.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	const day = 24 * time.Hour
	switch {
	case t.IsZero():
		return ""
	case d < time.Second:
		return "now"
	case d >= 30*day:
		return t.In(now.Location()).Format(time.DateOnly)
	}
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int64(d / unit.length); n == 1 {
			return "1 " + unit.name + " ago"
		} else if n > 1 {
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return ""
}
