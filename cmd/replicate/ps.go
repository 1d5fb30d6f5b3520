package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
)

const psHelp = `Lists the experiments that are running, as ls does, and says what of this project is still on its way to its
storage. The machines of runs, and those of hosts: in replicate.yaml, are asked what runs there, and commits that
are due are fetched. One that does not answer within 3 s makes the status of its runs unreachable: nothing is
known of them then. A machine without runs that does not answer, and a job whose experiment is not in the storage
yet, have a line too, unless -f or -n chooses among experiments.`

// unreachable is the status of a run whose machine does not answer. It is never stored.
const unreachable replicate.Status = "unreachable"

const (
	// goesOn holds for experiments that have not ended; lost ones are asked for as well.
	goesOn     = "status in (building, waiting, running, detached)"
	mayGoOn    = "status in (building, waiting, running, detached, lost)"
	psPatience = 3 * time.Second
	psDials    = 8
	psPullsFor = 30 * time.Second
)

func psCommand(w *world) *cli.Command {
	return &cli.Command{
		Name: "ps", Aliases: []string{"processes"},
		Usage:       "list running experiments",
		Description: psHelp,
		Flags:       append(append(listFlags(), identityFlag()), storageFlags()...),
		Action: func(c *cli.Context) error {
			heard, err := w.askMachines(c)
			if err != nil {
				return err
			}
			filters := append(c.StringSlice("filter"), goesOn)
			if len(heard.statuses) > 0 {
				filters[len(filters)-1] = mayGoOn
			}
			return listWith(c, w, filters, heard.correct)
		},
	}
}

// A hearsay is what machines say.
type hearsay struct {
	mu       sync.Mutex // guards statuses and jobs while machines are asked
	statuses map[replicate.ID]replicate.Status
	jobs     map[replicate.ID]*index.Experiment // that run, by what their containers tell
	silent   []*index.Experiment                // a line for each machine without runs that says nothing
}

// correct puts what machines say in place of what the storage says, and leaves out lost experiments of which nothing was heard. Whatever the storage knows
// nothing of stands at the end.
func (h *hearsay) correct(s *session, list []*index.Experiment) ([]*index.Experiment, error) {
	var kept []*index.Experiment
	for _, e := range list {
		status, ok := h.statuses[e.ID]
		if ok && !e.Status.Final() {
			e.Status = status
		}
		if e.Status != replicate.Lost {
			kept = append(kept, e)
		}
	}
	strangers, err := h.strangers(s)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(h.silent, func(a, b *index.Experiment) int { return strings.Compare(a.Host, b.Host) })
	return slices.Concat(kept, strangers, h.silent), nil
}

// strangers are the jobs that the storage knows nothing of: another machine has not sent them yet, or they were deleted.
func (h *hearsay) strangers(s *session) (list []*index.Experiment, err error) {
	for id, e := range h.jobs {
		if s.index != nil {
			_, err = s.index.Experiment(s.ctx, id)
		}
		switch {
		case s.index == nil || replicate.KindOf(err) == replicate.NotFound:
			list = append(list, e)
		case err != nil:
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b *index.Experiment) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// A machine is one that may have runs of the project.
type machine struct {
	name   string
	target remote.Target
	err    error          // why it has no target, or does not answer
	ids    []replicate.ID // of runs that were started there
}

// machines are those of hosts:, of runs that may go on, and of runs with commits that are due; each once, whatever it is called.
func (w *world) machines(c *cli.Context, p *project.Project, list []*index.Experiment) []*machine {
	var all []*machine
	places := map[string]*machine{}
	at := func(name string) *machine {
		t, err := w.target(c, p, name)
		place := t.Place()
		if err != nil {
			place = name
		}
		if places[place] == nil {
			places[place] = &machine{name: name, target: t, err: err}
			all = append(all, places[place])
		}
		return places[place]
	}
	add := func(name string, id replicate.ID) {
		if m := at(name); !slices.Contains(m.ids, id) {
			m.ids = append(m.ids, id)
		}
	}
	for _, name := range sortedKeys(p.Config.Hosts) {
		at(name)
	}
	for _, e := range list {
		if e.Run != nil && e.Run.Target != "" {
			add(e.Run.Target, e.ID)
		}
	}
	for id, note := range remote.Notes(p) {
		if (note.Due || note.Start != nil) && note.Target != "" {
			add(note.Target, id)
		}
	}
	return all
}

// askMachines asks the machines of the project what runs there, and fetches what is due.
func (w *world) askMachines(c *cli.Context) (*hearsay, error) {
	heard := &hearsay{statuses: map[replicate.ID]replicate.Status{}, jobs: map[replicate.ID]*index.Experiment{}}
	var list []*index.Experiment
	var p *project.Project
	err := w.with(c, func(s *session) (err error) {
		p = s.project
		list, err = s.list(index.Query{Filters: []string{mayGoOn}, Brief: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	machines := w.machines(c, p, list)
	if len(machines)+len(remote.Notes(p)) == 0 {
		return heard, nil
	}
	client, err := w.remote(c)
	if err != nil {
		return nil, err
	}
	w.settleHere(c.Context, client, p)
	client.SSH.Ask, client.Confirm = nil, nil // one question after the other would be no answer
	ask := &asking{w: w, client: client, project: p, heard: heard, goOn: map[replicate.ID]bool{}}
	for _, e := range list {
		ask.goOn[e.ID] = true
	}
	ask.all(c.Context, machines)
	if len(c.StringSlice("filter"))+c.Int("last") > 0 {
		heard.jobs = nil // the storage chooses, which knows nothing of them
	}
	if len(c.StringSlice("filter"))+c.Int("last") > 0 || c.Bool("json") || c.Bool("quiet") {
		heard.silent = nil // they are no experiments
	}
	return heard, nil
}

// An asking asks machines.
type asking struct {
	w       *world
	client  *remote.Client
	project *project.Project
	goOn    map[replicate.ID]bool // experiments of the storage that have not ended
	heard   *hearsay
}

func (a *asking) all(ctx context.Context, machines []*machine) {
	var all sync.WaitGroup
	places := make(chan struct{}, psDials)
	for _, m := range machines {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			a.one(ctx, m)
		})
	}
	all.Wait()
	for _, m := range machines {
		if m.err != nil {
			a.silent(m)
		}
	}
}

// one asks one machine.
func (a *asking) one(ctx context.Context, m *machine) {
	h, runs, err := a.open(ctx, m)
	if err != nil {
		m.err = err
		return
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, psPullsFor)
	defer cancel()
	ids := slices.Clone(m.ids)
	for _, r := range runs {
		switch {
		case slices.Contains(ids, r.ID):
		case a.goOn[r.ID]: // it was started under another name of this machine
			ids = append(ids, r.ID)
		case r.Ours && r.Running:
			a.job(ctx, h, m, r)
		}
	}
	for _, id := range ids {
		a.run(ctx, h, id)
	}
}

// open connects to a machine and lists what is there, unless that takes too long.
func (a *asking) open(ctx context.Context, m *machine) (*remote.Host, []remote.Found, error) {
	if m.err != nil {
		return nil, nil, m.err
	}
	ctx, cancel := context.WithTimeout(ctx, psPatience)
	defer cancel()
	h, err := a.client.Open(ctx, m.target)
	if err != nil {
		return nil, nil, err
	}
	runs, err := h.Runs(ctx, a.project)
	if err != nil {
		h.Close()
		return nil, nil, err
	}
	return h, runs, nil
}

// silent notes that a machine did not answer, and says why, unless its runs were found all the same: under a name that works here.
func (a *asking) silent(m *machine) {
	lost := slices.DeleteFunc(slices.Clone(m.ids), func(id replicate.ID) bool { return a.heard.statuses[id] != "" })
	for _, id := range lost {
		a.heard.statuses[id] = unreachable
	}
	if len(m.ids) == 0 {
		a.heard.silent = append(a.heard.silent, &index.Experiment{Experiment: replicate.Experiment{Host: m.name, Status: unreachable}})
	}
	if len(m.ids) == 0 || len(lost) > 0 {
		a.w.report("warning", m.err)
	}
}

// run asks how a run is that was started on a machine, and fetches what is due.
func (a *asking) run(ctx context.Context, h *remote.Host, id replicate.ID) {
	var s job.State
	var stateErr error
	var asking sync.WaitGroup
	asking.Go(func() { s, stateErr = h.State(ctx, id) })
	_, err := h.Fetch(ctx, a.project, id)
	cutOff := errors.Is(err, remote.ErrCutOff)
	if err != nil && !cutOff && replicate.KindOf(err) != replicate.NotFound {
		a.w.report("warning", err)
	}
	asking.Wait()
	a.heard.mu.Lock()
	defer a.heard.mu.Unlock()
	switch {
	case cutOff:
		a.heard.statuses[id] = replicate.Building
		a.w.sayCutOff(id)
		return
	case errors.Is(err, remote.ErrAnotherEngine):
		if a.heard.statuses[id] == "" { // it may be found where it is
			a.heard.statuses[id] = unreachable
		}
	case stateErr == nil && !s.Ended():
		a.heard.statuses[id] = remote.StatusOf(s)
	}
	if stateErr == nil && !s.Ended() && (s.Unsent.Attach || s.Reason == job.ReasonSecrets) {
		a.w.say("%s needs credentials or variables that are newer: replicate attach %s", id.Short(), id.Short())
	}
}

// job asks how a job is that this machine may know nothing of.
func (a *asking) job(ctx context.Context, h *remote.Host, m *machine, r remote.Found) {
	s, err := h.State(ctx, r.ID)
	if err != nil || s.Ended() {
		return
	}
	a.heard.mu.Lock()
	defer a.heard.mu.Unlock()
	a.heard.jobs[r.ID] = &index.Experiment{Experiment: replicate.Experiment{
		ID: r.ID, Created: r.Created, User: r.User, Host: m.target.Host(r.Client), Status: remote.StatusOf(s),
	}}
}
