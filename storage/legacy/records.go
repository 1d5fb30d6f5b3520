package legacy

import (
	"bytes"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// record returns the record of an experiment. commits are all that it has; before is when the newest of its objects was stored.
func (e *experiment) record(commits []commit, running bool, before time.Time) (repository.Record, error) {
	row := &repository.ExperimentRow{Experiment: replicate.Experiment{
		ID: e.id, Created: e.created, User: e.user, Host: e.host, Params: e.params, Metric: e.goal(commits), Status: replicate.Finished,
	}}
	if e.command != "" {
		row.Command = []string{e.command}
	}
	if e.python != "" || len(e.packages) > 0 {
		row.Python = &replicate.Python{Version: e.python, Packages: map[string]string{}}
		for _, m := range e.packages {
			row.Python.Packages[m.Name] = m.Value.String()
		}
	}
	row.Before = before.Add(time.Millisecond) // the record with the end replaces the one without
	if running {
		row.Status, row.Before = "", before
	}
	var err error
	if row.Tree, err = repository.ForeignTree(e.id, e.id); err != nil {
		return repository.Record{}, err
	}
	old := replicate.Values{{Name: "id", Value: replicate.Text(string(e.id))}}
	if e.version != "" {
		old = append(old, replicate.Member{Name: "version", Value: replicate.Text(e.version)})
	}
	if !e.config.IsNull() {
		old = append(old, replicate.Member{Name: "config", Value: e.config})
	}
	return encode(repository.Record{Experiment: row}, withPath(old, e.path))
}

// goal is the primary metric: that of the newest commit which has one, else the one that was configured.
func (e *experiment) goal(commits []commit) *replicate.Metric {
	for i := range commits {
		if m := commits[len(commits)-1-i].primary; m != nil {
			return m
		}
	}
	return e.primary
}

// records returns the records of an experiment's commits, which must be sorted.
func records(experiment replicate.ID, commits []commit) ([]repository.Record, error) {
	list := make([]repository.Record, len(commits))
	for i, c := range commits {
		row := &repository.CommitRow{Commit: replicate.Commit{
			ID: c.id, Experiment: experiment, Seq: int64(i), Time: c.created, Step: c.step, Metrics: c.metrics,
		}}
		if i > 0 {
			row.Parent = commits[i-1].id
		}
		row.Before = c.created
		var err error
		if row.Tree, err = repository.ForeignTree(experiment, c.id); err != nil {
			return nil, err
		}
		old := replicate.Values{{Name: "id", Value: replicate.Text(string(c.id))}}
		if list[i], err = encode(repository.Record{Commit: row}, withPath(old, c.path)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func withPath(old replicate.Values, path *string) replicate.Values {
	if path == nil {
		return old
	}
	return append(old, replicate.Member{Name: "path", Value: replicate.Text(*path)})
}

// encode returns a record with a member "legacy", for people: of what was stored, what has no place in today's records.
func encode(record repository.Record, old replicate.Values) (repository.Record, error) {
	record, err := record.Encode()
	if err != nil {
		return record, err
	}
	line := append(bytes.TrimSuffix(record.Line, []byte("}")), `,"legacy":`...)
	return repository.ParseRecord(append(old.AppendJSON(line), '}'))
}
