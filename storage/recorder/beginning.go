package recorder

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/replicate/replicate"
)

// joinVariable names the experiment that a process takes part in: set by the wrapper of a command, and by people.
const joinVariable = "REPLICATE_EXPERIMENT_ID"

// A beginning is one init being carried out.
type beginning struct {
	*request
	env     environment
	place   *place
	session *Session
}

// begin decides what init means and does it.
func (b *beginning) begin(ctx context.Context) (*started, error) {
	joined := b.env[joinVariable]
	switch {
	case joined != "" && (b.Resume.id == "" || b.Resume.id == joined):
		return b.join(ctx, joined)
	case b.Resume.id != "":
		found, err := b.place.findExperiment(ctx, b.Resume.id)
		if err != nil {
			return nil, err
		}
		return b.goOn(ctx, found)
	case b.Resume.newest:
		found, err := b.interrupted(ctx)
		if err != nil {
			return nil, err
		}
		if found != nil {
			return b.goOn(ctx, found)
		}
	}
	return b.new(ctx)
}

// new begins an experiment.
func (b *beginning) new(ctx context.Context) (*started, error) {
	id, err := replicate.NewID(b.session.o.Random)
	if err != nil {
		return nil, err
	}
	parent, err := b.parent(ctx)
	if err != nil {
		return nil, err
	}
	s := b.session
	e := replicate.Experiment{
		ID: id, Created: s.o.Now().UTC(), Name: b.Name, User: User(b.env.get), Host: hostOf(b.env), Directory: b.place.project.Root,
		Command: maskArgs(b.Argv), Params: maskValues(b.Params), Metric: b.primary(), Parent: parent,
		Tags: slices.Compact(slices.Sorted(slices.Values(b.Tags))), Note: b.Note,
		Environment: b.env.captured(b.place.project.Config.Env),
	}
	s.experiment, s.metric = id, e.Metric
	s.setOptions(s.InRoot(b.Cwd, b.Path))
	writer, snapshot, err := b.place.spool.Begin(ctx, e, s.options)
	if err != nil {
		return nil, err
	}
	s.writer, s.free = writer, b.place.spool.Free()
	return &started{
		Created: e.Created.Format(time.RFC3339Nano), Files: snapshot.Files, Bytes: snapshot.Bytes, LeftOut: largest(snapshot.LeftOut),
	}, nil
}

// goOn makes an experiment that stopped run again.
func (b *beginning) goOn(ctx context.Context, found *standing) (*started, error) {
	s := b.session
	if err := s.attach(ctx, found, s.InRoot(b.Cwd, b.Path), false); err != nil {
		return nil, err
	}
	none := json.RawMessage("null")
	facts := b.additions(&found.row.Experiment)
	facts["status"], facts["ended"], facts["exit_code"], facts["error"] = raw(replicate.Running), none, none, none
	if err := s.writer.Set(ctx, facts); err != nil {
		return nil, err
	}
	if err := s.writer.Beat(ctx); err != nil {
		return nil, err
	}
	return &started{Created: found.row.Created.Format(time.RFC3339Nano), Resumed: true}, nil
}

// join takes part in an experiment that somebody else began and ends.
func (b *beginning) join(ctx context.Context, id string) (*started, error) {
	found, err := b.place.findExperiment(ctx, id)
	if err != nil {
		return nil, &replicate.Error{Op: "take part in the experiment of", Path: joinVariable, Err: err}
	}
	if status := found.row.Status; status.Final() {
		return nil, replicate.Errorf(replicate.Usage, "%s names experiment %s, which has ended: %s", joinVariable, found.row.ID.Short(), status).
			WithHint("unset %s, or resume the experiment", joinVariable)
	}
	s := b.session
	if err := s.attach(ctx, found, s.InRoot(b.Cwd, b.Path), true); err != nil {
		return nil, err
	}
	if facts := b.additions(&found.row.Experiment); len(facts) > 0 {
		if err := s.writer.Set(ctx, facts); err != nil {
			return nil, err
		}
	}
	return &started{Created: found.row.Created.Format(time.RFC3339Nano), Resumed: true}, nil
}

// additions returns what this init says beyond what is known of an experiment.
func (b *beginning) additions(known *replicate.Experiment) map[string]json.RawMessage {
	facts := map[string]json.RawMessage{}
	if len(b.Params) > 0 {
		params := slices.Clone(known.Params)
		for _, m := range maskValues(b.Params) {
			params = params.Set(m.Name, m.Value)
		}
		if !params.Equal(known.Params) {
			facts["params"] = params.AppendJSON(nil)
		}
	}
	if b.Name != "" && b.Name != known.Name {
		facts["name"] = raw(b.Name)
	}
	if len(b.Tags) > 0 {
		facts["tags"] = tagField(b.Tags)
	}
	if m := b.primary(); m != nil && known.Metric == nil {
		facts["metric"] = raw([]string{m.Name, string(m.Goal)})
		b.session.metric = m
	}
	return facts
}

// primary returns the metric that decides which commit is best: the client's, else that of replicate.yaml, else nil.
func (b *beginning) primary() *replicate.Metric {
	if b.Metric != nil {
		return (*replicate.Metric)(b.Metric)
	}
	return b.place.project.Config.Primary()
}

// parent returns the commit that this run started from: the one named, else the one last checked out here, else "".
func (b *beginning) parent(ctx context.Context) (replicate.ID, error) {
	if b.Parent != "" {
		return b.findParent(ctx)
	}
	data, err := os.ReadFile(filepath.Join(b.place.project.Private(), "checkout"))
	if err != nil {
		return "", nil
	}
	var checkout struct {
		Commit string `json:"commit"`
	}
	if err := json.Unmarshal(data, &checkout); err != nil {
		b.session.o.Tell(Remark{Note: fmt.Sprintf("what was checked out last is not known: .replicate/checkout: %v", err)})
		return "", nil
	}
	id, err := replicate.ParseID(checkout.Commit)
	if err != nil {
		return "", nil
	}
	return id, nil
}

// findParent returns the commit that Parent names. If the storage cannot be asked, only a whole id is understood.
func (b *beginning) findParent(ctx context.Context) (replicate.ID, error) {
	repo, ctx, cancel, err := b.place.repository(ctx)
	var id replicate.ID
	if err == nil {
		defer cancel()
		id, err = findParent(ctx, repo, b.Parent)
	}
	if replicate.KindOf(err) != replicate.Unavailable {
		return id, err
	}
	id, wrong := replicate.ParseID(b.Parent)
	if wrong != nil {
		b.session.o.Tell(Remark{Warning: fmt.Sprintf("which commit %q is cannot be found out now, and is not recorded: %v", b.Parent, err)})
		return "", nil
	}
	return id, nil
}

// interrupted returns the experiment that goes on with "resume": true, or nil. If the storage cannot be asked, there is none.
func (b *beginning) interrupted(ctx context.Context) (*standing, error) {
	repo, ctx, cancel, err := b.place.repository(ctx)
	var found *standing
	if err == nil {
		defer cancel()
		found, err = findInterrupted(ctx, repo, maskArgs(b.Argv), b.place.project.Root)
	}
	switch replicate.KindOf(err) {
	case replicate.NotFound:
		return nil, nil
	case replicate.Unavailable:
		b.session.o.Tell(Remark{Warning: "whether an experiment can go on cannot be found out now, so a new one begins: " + err.Error()})
		return nil, nil
	}
	return found, err
}

func tagField(tags []string) json.RawMessage {
	field := map[string]bool{}
	for _, tag := range tags {
		field[tag] = true
	}
	return raw(field)
}
