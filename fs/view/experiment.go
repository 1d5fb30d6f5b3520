package view

import (
	"context"

	"github.com/replicate/replicate/index"
)

// experimentNode returns the node that a name of an experiment's directory stands for now, errNone if its fact was not recorded.
func (v *View) experimentNode(ctx context.Context, s *snapshot, e *index.Experiment, k kind) (ID, error) {
	there := false
	switch k {
	case experimentJSON, paramsJSON, summaryJSON, commitsCSV:
		there = true
	case metricsCSV, outputLog:
		return v.streamNode(ctx, s, e, k)
	case metricsSVG:
		for _, m := range e.Metrics {
			there = there || m.Min != nil
		}
	case requirementsTXT:
		there = e.Python != nil && len(e.Python.Packages) > 0
	case environmentJSON:
		there = e.Python != nil || e.Machine != nil || len(e.Environment) > 0
	case gitJSON:
		there = e.Git != nil
	case diffPatch:
		there = e.Git != nil && e.Git.Patch != ""
	case latestName:
		return v.commitNode(ctx, s, e.Latest)
	case bestName:
		return v.commitNode(ctx, s, e.Best)
	case commitsName:
		return newID(dirOf, e.Ord, int64(commitsKind)), nil
	}
	if !there {
		return 0, errNone
	}
	return fileID(e.Ord, k, e.Version), nil
}

// commitNode is the link from an experiment to one of its commits.
func (v *View) commitNode(ctx context.Context, s *snapshot, c *index.Commit) (ID, error) {
	if c == nil {
		return 0, errNone
	}
	c, err := v.numbered(ctx, s, c)
	if err != nil {
		return 0, err
	}
	return v.linkTo(ctx, s, commitLink, c.Ord, fromExperiment)
}

// numbered returns a commit with its ordinal, for which its row must be fetched if the index has only heard of it.
func (v *View) numbered(ctx context.Context, s *snapshot, c *index.Commit) (*index.Commit, error) {
	if c.Ord != 0 {
		return c, nil
	}
	before := v.index.Version()
	c, err := v.index.Commit(ctx, c.ID)
	v.renew(s, before)
	return c, gone(err)
}

func (v *View) lookupInExperiment(ctx context.Context, s *snapshot, ord int64, name string) (ID, error) {
	k := kindOf(experimentNames[:], name)
	if k == 0 {
		return 0, errNone
	}
	e, err := v.experiment(ctx, s, ord)
	if err != nil {
		return 0, err
	}
	return v.experimentNode(ctx, s, e, k)
}

func (v *View) listExperiment(ctx context.Context, s *snapshot, ord int64, cookie uint64, yield func(uint64, Entry) bool) error {
	e, err := v.experiment(ctx, s, ord)
	if err != nil {
		return err
	}
	for k := experimentJSON; k < lastName; k++ {
		at := uint64(k) + FirstCookie
		if at <= cookie {
			continue
		}
		id, err := v.experimentNode(ctx, s, e, k)
		if err == errNone {
			continue
		}
		if err != nil {
			return err
		}
		if !yield(at, v.entry(ctx, s, experimentNames[k], id)) {
			return nil
		}
	}
	return nil
}

// linkTo is the node of a link to an experiment or a commit, by its present name.
func (v *View) linkTo(ctx context.Context, s *snapshot, c class, ord int64, f form) (ID, error) {
	name, err := v.shortName(ctx, s, c, ord)
	if err != nil {
		return 0, err
	}
	return linkID(c, ord, f, len(name)), nil
}

// shortName is the listed beginning of the id of an experiment or a commit.
func (v *View) shortName(ctx context.Context, s *snapshot, c class, ord int64) (string, error) {
	what := ofExperiments
	if c == commitLink {
		what = ofCommits
	}
	names, err := v.namesOf(ctx, s, what)
	if err != nil {
		return "", err
	}
	name, ok := names.nameOf(ord)
	if !ok {
		return "", ErrStale
	}
	return name, nil
}

// target returns where a link leads, and the time of what it leads to. The digits are those of the id when the link was made: a
// name that has got longer since is another link, and this one leads to it.
func (v *View) target(ctx context.Context, s *snapshot, id ID) (target string, mtime int64, err error) {
	if id.class() == experimentLink {
		e, err := v.experiment(ctx, s, id.ord())
		if err != nil {
			return "", 0, err
		}
		target = string(e.ID[:min(id.digits(), len(e.ID))])
		if id.form() == fromRoot {
			target = rootNames[rootExperiments] + "/" + target
		}
		return target, e.Changed.UnixNano(), nil
	}
	if id.class() != commitLink {
		return "", 0, ErrStale
	}
	c, err := v.commit(ctx, s, id.ord())
	if err != nil {
		return "", 0, err
	}
	target = string(c.ID[:min(id.digits(), len(c.ID))])
	switch id.form() {
	case besidesStep:
		target = stepName(c, target)
	case fromExperiment:
		target = experimentNames[commitsName] + "/" + stepName(c, target)
	}
	return target, c.Time.UnixNano(), nil
}
