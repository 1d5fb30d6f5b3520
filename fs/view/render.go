package view

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// render returns the content of a rendered file. It is rendered once for each version, and an older version is only found as
// long as it is kept.
func (v *View) render(ctx context.Context, s *snapshot, id ID) (*spill, error) {
	return v.rendered.get(id, func() (*spill, int64, error) {
		out := newSpill(v.cache)
		w := bufio.NewWriterSize(out, 64<<10)
		mtime, err := v.renderTo(ctx, s, id, w)
		if err == nil {
			err = w.Flush()
		}
		if err == nil && id.class() == rootFile {
			err = v.agree(id, out.size)
		}
		if err != nil {
			return nil, 0, err
		}
		out.mtime.Store(mtime)
		out.publish()
		return out, out.weight(), nil
	})
}

func (v *View) renderTo(ctx context.Context, s *snapshot, id ID, w *bufio.Writer) (mtime int64, err error) {
	switch id.class() {
	case rootFile:
		if mtime, err = v.newestTime(ctx, s); err != nil {
			return 0, err
		}
		return mtime, v.renderTable(ctx, id, w)
	case fileOf:
		e, err := v.experiment(ctx, s, id.ord())
		if err != nil {
			return 0, err
		}
		if e.Version&maxVersion != id.version() {
			return 0, ErrStale
		}
		return e.Changed.UnixNano(), v.renderFile(ctx, s, e, id.kind(), w)
	case commitJSON:
		c, err := v.commit(ctx, s, id.ord())
		if err != nil {
			return 0, err
		}
		_, err = w.Write(commitDocument(c))
		return c.Time.UnixNano(), err
	}
	return 0, ErrStale
}

// renderFile writes a file of an experiment.
func (v *View) renderFile(ctx context.Context, s *snapshot, e *index.Experiment, k kind, w *bufio.Writer) error {
	switch k {
	case experimentJSON:
		w.Write(experimentDocument(e))
	case paramsJSON:
		w.Write(document(e.Params))
	case summaryJSON:
		w.Write(summaryDocument(e))
	case requirementsTXT:
		for _, name := range slices.Sorted(maps.Keys(e.Python.Packages)) {
			fmt.Fprintf(w, "%s==%s\n", name, e.Python.Packages[name])
		}
	case environmentJSON:
		w.Write(environmentDocument(e))
	case gitJSON:
		w.Write(gitDocument(e.Git))
	case diffPatch:
		w.WriteString(e.Git.Patch)
	case commitsCSV:
		return v.renderCommits(ctx, s, e, w)
	case metricsCSV:
		return v.renderMetrics(ctx, e, w)
	case metricsSVG:
		return v.renderCurves(ctx, e, w)
	case outputLog:
		rows, err := v.index.Streams(ctx, e.ID, repository.OutputStream)
		if err != nil {
			return err
		}
		return v.repo.Stream(rows).WriteTo(ctx, w)
	default:
		return ErrStale
	}
	return nil
}

// experimentDocument has everything that differs even between two runs of the same thing, so that nothing else does.
func experimentDocument(e *index.Experiment) []byte {
	d := replicate.Values{
		member("id", replicate.Text(string(e.ID))),
		member("name", textOrNull(e.Name)),
		member("parent", textOrNull(string(e.Parent))),
		member("created", timeOrNull(e.Created)),
		member("ended", timeOrNull(e.Ended)),
		member("status", replicate.Text(string(e.Status))),
		member("user", textOrNull(e.User)),
		member("host", textOrNull(e.Host)),
		member("command", texts(e.Command)),
		member("directory", textOrNull(e.Directory)),
		member("tags", texts(e.Tags)),
		member("note", textOrNull(e.Note)),
		member("commits", replicate.Int(e.Commits)),
		member("size", replicate.Int(e.Size)),
		member("exit_code", replicate.Value{}),
		member("error", replicate.Value{}),
	}
	if e.ExitCode != nil {
		d = d.Set("exit_code", replicate.Int(int64(*e.ExitCode)))
	}
	if f := e.Failure; f != nil {
		d = d.Set("error", replicate.Map(replicate.Values{
			member("type", textOrNull(f.Type)), member("message", textOrNull(f.Message)), member("traceback", textOrNull(f.Traceback))}))
	}
	return document(d)
}

func summaryDocument(e *index.Experiment) []byte {
	metrics := replicate.Values{}
	for _, m := range e.Metrics {
		metrics = append(metrics, member(m.Name, replicate.Map(replicate.Values{
			member("first", pointValue(m.First)), member("last", pointValue(m.Last)),
			member("min", pointValue(m.Min)), member("max", pointValue(m.Max)),
			member("goal", textOrNull(string(m.Goal))),
		})))
	}
	best, primary := replicate.Value{}, replicate.Value{}
	if e.Best != nil {
		best = replicate.Map(replicate.Values{member("id", replicate.Text(string(e.Best.ID))), member("step", stepOrNull(e.Best.Step))})
	}
	if e.Primary != nil {
		primary = replicate.Map(replicate.Values{
			member("name", replicate.Text(e.Primary.Name)), member("goal", replicate.Text(string(e.Primary.Goal)))})
	}
	return document(replicate.Values{
		member("metrics", replicate.Map(metrics)), member("commits", replicate.Int(e.Commits)),
		member("best_commit", best), member("primary_metric", primary)})
}

func pointValue(p *replicate.Point) replicate.Value {
	if p == nil {
		return replicate.Value{}
	}
	return replicate.Map(replicate.Values{member("value", p.Value), member("step", stepOrNull(p.Step))})
}

func environmentDocument(e *index.Experiment) []byte {
	d := replicate.Values{member("environment", replicate.Map(e.Environment))}
	if p := e.Python; p != nil {
		d = append(d, member("python", replicate.Map(replicate.Values{
			member("version", textOrNull(p.Version)), member("executable", textOrNull(p.Executable)), member("imported", texts(p.Imported))})))
	}
	if m := e.Machine; m != nil {
		d = append(d, member("machine", replicate.Map(replicate.Values{
			member("os", textOrNull(m.OS)), member("kernel", textOrNull(m.Kernel)), member("cpu", textOrNull(m.CPU)),
			member("cores", replicate.Int(int64(m.Cores))), member("memory", replicate.Int(m.Memory)),
			member("gpus", texts(m.GPUs)), member("driver", textOrNull(m.Driver)),
		})))
	}
	return document(d)
}

func gitDocument(g *replicate.Git) []byte {
	return document(replicate.Values{
		member("commit", textOrNull(g.Commit)), member("branch", textOrNull(g.Branch)), member("remote", textOrNull(g.Remote)),
		member("dirty", replicate.Bool(g.Dirty)), member("files", replicate.Int(int64(g.Files))),
	})
}

func commitDocument(c *index.Commit) []byte {
	return document(replicate.Values{
		member("id", replicate.Text(string(c.ID))),
		member("experiment", replicate.Text(string(c.Experiment))),
		member("parent", textOrNull(string(c.Parent))),
		member("step", stepOrNull(c.Step)),
		member("created", timeOrNull(c.Time)),
		member("message", textOrNull(c.Message)),
		member("metrics", replicate.Map(c.Metrics)),
		member("files", replicate.Int(c.Files)),
		member("bytes", replicate.Int(c.Bytes)),
	})
}

// renderCommits writes commits.csv: the commits in their order, their metrics by name.
func (v *View) renderCommits(ctx context.Context, s *snapshot, e *index.Experiment, w *bufio.Writer) error {
	commits, err := v.index.CommitsOf(ctx, e.ID)
	if err != nil {
		return err
	}
	names, err := v.namesOf(ctx, s, ofCommits)
	if err != nil {
		return err
	}
	metrics := make(map[string]bool)
	for _, c := range commits {
		for _, m := range c.Metrics {
			metrics[m.Name] = true
		}
	}
	columns := slices.Sorted(maps.Keys(metrics))
	t := &table{w: w}
	t.row(append([]string{"commit", "step", "time", "dir", "files", "bytes", "message"}, columns...)...)
	for _, c := range commits {
		short, ok := names.nameOf(c.Ord)
		if !ok {
			short = c.ID.Short()
		}
		t.cell(string(c.ID))
		t.step(c.Step)
		t.time(c.Time)
		t.cell(stepName(c, short))
		t.int(c.Files)
		t.int(c.Bytes)
		t.cell(c.Message)
		for _, name := range columns {
			t.value(c.Metrics, name)
		}
		t.end()
	}
	return nil
}
