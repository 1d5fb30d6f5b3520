package main

import (
	"context"
	"errors"
	"slices"
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
storage. The machines of runs are asked how these are, and commits that are due are fetched; one that does not
answer within 3 s makes the status of its runs unreachable: nothing is known of them then.`

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
			heard, err := w.askHosts(c)
			if err != nil {
				return err
			}
			filters := append(c.StringSlice("filter"), goesOn)
			if len(heard) > 0 {
				filters[len(filters)-1] = mayGoOn
			}
			return listWith(c, w, filters, func(list []*index.Experiment) []*index.Experiment { return hearsay(list, heard) })
		},
	}
}

// hearsay puts what machines say in place of what the storage says, and leaves out lost experiments of which nothing was heard.
func hearsay(list []*index.Experiment, heard map[replicate.ID]replicate.Status) []*index.Experiment {
	var kept []*index.Experiment
	for _, e := range list {
		status, ok := heard[e.ID]
		if ok && !e.Status.Final() {
			e.Status = status
		}
		if e.Status != replicate.Lost {
			kept = append(kept, e)
		}
	}
	return kept
}

// askHosts asks the machines of runs that may go on how these are, and fetches what is due.
func (w *world) askHosts(c *cli.Context) (map[replicate.ID]replicate.Status, error) {
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
	machines := map[string][]replicate.ID{}
	for _, e := range list {
		if e.Run != nil && e.Run.Target != "" {
			machines[e.Run.Target] = append(machines[e.Run.Target], e.ID)
		}
	}
	notes := remote.Notes(p)
	for id, note := range notes {
		if note.Due && note.Target != "" && !slices.Contains(machines[note.Target], id) {
			machines[note.Target] = append(machines[note.Target], id)
		}
	}
	if len(machines)+len(notes) == 0 {
		return nil, nil
	}
	client, err := w.remote(c)
	if err != nil {
		return nil, err
	}
	w.settleHere(c.Context, client, p)
	client.SSH.Ask, client.Confirm = nil, nil // one question after the other would be no answer
	return w.askAll(c, client, p, machines)
}

func (w *world) askAll(c *cli.Context, client *remote.Client, p *project.Project, machines map[string][]replicate.ID) (map[replicate.ID]replicate.Status, error) {
	heard := map[replicate.ID]replicate.Status{}
	var mu sync.Mutex // guards heard
	var all sync.WaitGroup
	places := make(chan struct{}, psDials)
	for target, ids := range machines {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			said := w.askOne(c, client, p, target, ids)
			mu.Lock()
			defer mu.Unlock()
			for id, status := range said {
				heard[id] = status
			}
		})
	}
	all.Wait()
	return heard, nil
}

// askOne asks one machine.
func (w *world) askOne(c *cli.Context, client *remote.Client, p *project.Project, target string, ids []replicate.ID) map[replicate.ID]replicate.Status {
	said := map[replicate.ID]replicate.Status{}
	t, err := w.target(c, p, target)
	var h *remote.Host
	if err == nil {
		h, err = openWithin(c.Context, client, t, psPatience)
	}
	if err != nil {
		for _, id := range ids {
			said[id] = unreachable
		}
		w.report("warning", err)
		return said
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(c.Context, psPullsFor)
	defer cancel()
	for _, id := range ids {
		var s job.State
		var stateErr error
		var asking sync.WaitGroup
		asking.Go(func() { s, stateErr = h.State(ctx, id) })
		_, err := h.Fetch(ctx, p, id)
		if err != nil && replicate.KindOf(err) != replicate.NotFound {
			w.report("warning", err)
		}
		asking.Wait()
		switch {
		case errors.Is(err, remote.ErrAnotherEngine):
			said[id] = unreachable
		case stateErr == nil && !s.Ended():
			said[id] = remote.StatusOf(s)
		}
		if stateErr == nil && !s.Ended() && (s.Unsent.Attach || s.Reason == job.ReasonSecrets) {
			w.say("%s needs credentials or variables that are newer: replicate attach %s", id.Short(), id.Short())
		}
	}
	return said
}

// openWithin connects, unless that takes too long.
func openWithin(ctx context.Context, client *remote.Client, t remote.Target, limit time.Duration) (*remote.Host, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return client.Open(ctx, t)
}
