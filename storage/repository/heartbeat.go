package repository

import (
	"context"
	"encoding/json"
	"time"

	"github.com/replicate/replicate"
)

// maxHeartbeat bounds what is read of a heartbeat.
const maxHeartbeat = 64 << 10

// A Heartbeat is what a recorder says of a running experiment every replicate.HeartbeatEvery.
type Heartbeat struct {
	Experiment replicate.ID     `json:"experiment"`
	Writer     string           `json:"writer"`
	Time       time.Time        `json:"time"`
	Step       replicate.Step   `json:"step"`
	Metrics    replicate.Values `json:"metrics,omitempty"`
	Unsent     int64            `json:"unsent"` // bytes waiting in the spool
	Ready      int              `json:"ready"`  // records waiting in the spool
}

// Heartbeats returns the age of every heartbeat by the store's clock. It is one listing.
func (r *Repository) Heartbeats(ctx context.Context) (map[replicate.ID]time.Duration, error) {
	seen := map[replicate.ID]time.Time{}
	for o, err := range r.store.List(ctx, livePrefix, "") {
		if err != nil {
			return nil, r.failed("list heartbeats of", "", err)
		}
		if id, ok := parseLiveKey(o.Key); ok {
			seen[id] = o.Time
		}
	}
	ages := map[replicate.ID]time.Duration{}
	if r.foreign != nil {
		var err error
		if ages, err = r.foreign.Heartbeats(ctx); err != nil {
			return nil, r.failed("list heartbeats of", "", err)
		}
	}
	if len(seen) == 0 {
		return ages, nil
	}
	now, err := r.store.Now(ctx)
	if err != nil {
		return nil, r.failed("list heartbeats of", "", err)
	}
	for id, t := range seen {
		ages[id] = max(0, now.Sub(t))
	}
	return ages, nil
}

// Heartbeat returns what the last heartbeat of an experiment said. The error is of kind NotFound if there is none.
func (r *Repository) Heartbeat(ctx context.Context, experiment replicate.ID) (Heartbeat, error) {
	key := liveKey(experiment)
	data, err := readObject(ctx, r.store, key, 0, maxHeartbeat)
	if err != nil {
		return Heartbeat{}, r.failed("read the heartbeat of", string(experiment), err)
	}
	var h Heartbeat
	if err := json.Unmarshal(data, &h); err != nil {
		return Heartbeat{}, r.failed("read", key, replicate.Errorf(replicate.Corrupt, "%w", err))
	}
	return h, nil
}

// failed is the error of doing op to path, which is the storage itself if "".
func (r *Repository) failed(op, path string, err error) error {
	if path == "" {
		path = r.store.URL()
	}
	return &replicate.Error{Op: op, Path: path, Kind: replicate.KindOf(err), Err: err}
}
