package remote

import (
	"context"
	"maps"
	"time"
)

// renewEvery is how often it is looked whether credentials have changed: those that end live for a quarter of an hour at least.
const renewEvery = 5 * time.Minute

// sendSecrets sends the secrets of now to the supervisor.
func (r *Run) sendSecrets(ctx context.Context) error {
	found, err := r.secrets(ctx)
	if err != nil {
		return err
	}
	r.sent = found
	return r.currentHost().giveSecrets(ctx, r.ID, found)
}

// renew sends credentials of a bucket again whenever they have changed, as long as the run is followed.
func (r *Run) renew(ctx context.Context) (stop func()) {
	if r.host == nil || r.pulls() || r.secrets == nil || r.target.Credentials == "host" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			found, err := r.secrets(ctx)
			if err != nil || maps.Equal(found.Storage, r.sent.Storage) {
				continue // those that are there still count
			}
			if err := r.sendSecrets(ctx); err != nil && ctx.Err() == nil && !r.currentHost().lost(err) {
				r.client.Warn(err)
			}
		}
	}()
	return func() { cancel(); <-done }
}
