package legacy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/replicate/replicate"
)

// An experiment is what its metadata says. Zero is what is not known.
type experiment struct {
	id       replicate.ID
	created  time.Time
	params   replicate.Values
	user     string
	host     string
	command  string
	python   string
	packages replicate.Values
	primary  *replicate.Metric // of config
	path     *string           // nil: it is not said
	commits  []commit          // from F5, sorted; nil: they have objects of their own
	damage   error             // of commits that are not in commits

	config  replicate.Value
	version string // of the program that wrote it
}

// A commit is what its metadata says.
type commit struct {
	id         replicate.ID
	created    time.Time
	experiment replicate.ID // "" from F5
	step       replicate.Step
	metrics    replicate.Values
	primary    *replicate.Metric
	path       *string // nil: it is not said
	whole      bool    // F1: the files are the whole working directory
}

// A reader takes members of a JSON object, and keeps the first that is of the wrong kind.
type reader struct {
	members replicate.Values
	err     error
}

func readObject(v replicate.Value) (*reader, error) {
	if v.Kind() != replicate.MapKind {
		return nil, errors.New("want a JSON object")
	}
	return &reader{members: v.Map()}, nil
}

// get returns a member of a kind. Null and absent are the same.
func (r *reader) get(name string, kind replicate.ValueKind) (replicate.Value, bool) {
	v, ok := r.members.Get(name)
	if !ok || v.IsNull() {
		return v, false
	}
	if v.Kind() != kind && r.err == nil {
		r.err = fmt.Errorf("%s: %.40s", name, v.AppendJSON(nil))
	}
	return v, v.Kind() == kind
}

func (r *reader) text(name string) string {
	v, _ := r.get(name, replicate.TextKind)
	return v.Text()
}

func (r *reader) values(name string) replicate.Values {
	v, _ := r.get(name, replicate.MapKind)
	return v.Map()
}

// path is nil only if nothing at all is said.
func (r *reader) path() *string {
	if _, said := r.members.Get("path"); !said {
		return nil
	}
	path := r.text("path")
	return &path
}

func (r *reader) id(name string) replicate.ID {
	text := r.text(name)
	if text == "" {
		return ""
	}
	if !isID(text) && r.err == nil {
		r.err = fmt.Errorf("%s: %.80q is not an id of 64 hex digits", name, text)
	}
	return replicate.ID(text)
}

// isID reports whether a text is an id of these formats.
func isID(text string) bool {
	_, err := replicate.ParseHash(text)
	return err == nil
}

func (r *reader) time(name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, r.text(name))
	if err == nil && (t.Year() < 1 || t.Year() > 9999) {
		err = errors.New("out of range")
	}
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %.40q is not a time", name, r.text(name))
	}
	return t.UTC()
}

// metric reads {"name":…,"goal":…}.
func metric(v replicate.Value) *replicate.Metric {
	name, _ := v.Map().Get("name")
	goal, _ := v.Map().Get("goal")
	m := replicate.Metric{Name: name.Text(), Goal: replicate.Goal(goal.Text())}
	if m.Name == "" || m.Goal != replicate.Minimize && m.Goal != replicate.Maximize {
		return nil
	}
	return &m
}

// parseExperiment reads the metadata of an experiment of any format.
func parseExperiment(data []byte) (*experiment, error) {
	v, err := parse(data)
	if err != nil {
		return nil, err
	}
	r, err := readObject(v)
	if err != nil {
		return nil, err
	}
	e := &experiment{
		id: r.id("id"), created: r.time("created"), params: r.values("params"), user: r.text("user"), host: r.text("host"),
		command: r.text("command"), python: r.text("python_version"), packages: r.values("python_packages"), path: r.path(),
		version: cmp.Or(r.text("keepsake_version"), r.text("replicate_version")),
	}
	e.readConfig(r)
	if v, ok := r.members.Get("checkpoints"); ok {
		e.params = bracketedAll(e.params)
		e.commits, e.damage = parseCommits(v)
	}
	if r.err == nil && e.id == "" {
		r.err = errors.New("there is no id")
	}
	return e, r.err
}

// readConfig takes what was configured where the experiment ran.
func (e *experiment) readConfig(r *reader) {
	config, ok := r.get("config", replicate.MapKind)
	if !ok {
		return
	}
	e.config = config
	python, _ := config.Map().Get("python")
	e.python = cmp.Or(e.python, python.Text())
	metrics, _ := config.Map().Get("metrics")
	for _, m := range metrics.List() {
		if primary, _ := m.Map().Get("primary"); primary.Bool() && e.primary == nil {
			e.primary = metric(m)
		}
	}
}

// parseCommits reads the commits inside an experiment. The error names those that cannot be read.
func parseCommits(v replicate.Value) (commits []commit, err error) {
	commits = []commit{}
	for i, element := range v.List() {
		c, bad := readCommit(element)
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("checkpoint %d: %w", i, bad))
			continue
		}
		c.metrics, c.whole = bracketedAll(c.metrics), false
		commits = append(commits, *c)
	}
	sortCommits(commits)
	return commits, err
}

// sortCommits puts commits into the order in which they were made.
func sortCommits(commits []commit) {
	slices.SortStableFunc(commits, func(a, b commit) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id))
	})
}

// parseCommit reads the metadata of a commit that has an object of its own.
func parseCommit(data []byte) (*commit, error) {
	v, err := parse(data)
	if err != nil {
		return nil, err
	}
	c, err := readCommit(v)
	if err == nil && c.experiment == "" {
		err = errors.New("there is no experiment_id")
	}
	return c, err
}

func readCommit(v replicate.Value) (*commit, error) {
	r, err := readObject(v)
	if err != nil {
		return nil, err
	}
	c := &commit{
		id: r.id("id"), created: r.time("created"), experiment: r.id("experiment_id"), step: replicate.NoStep,
		metrics: r.values("metrics"), path: r.path(),
	}
	if c.metrics == nil {
		c.metrics = r.values("labels")
	}
	c.metrics = c.metrics.Flat("/")
	if v, ok := r.get("step", replicate.IntKind); ok {
		if n, fits := v.Int64(); fits {
			c.step = replicate.Step(n)
		}
	}
	if v, ok := r.get("primary_metric", replicate.MapKind); ok {
		c.primary = metric(v)
	}
	_, labelled := r.members.Get("labels")
	c.whole = labelled && c.path == nil
	if r.err == nil && c.id == "" {
		r.err = errors.New("there is no id")
	}
	return c, r.err
}
