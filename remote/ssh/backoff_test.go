package ssh

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPausesGrowToABound(t *testing.T) {
	var b Backoff
	for i := range 100 {
		full := min(firstPause<<min(i, 20), lastPause)
		if pause := b.Next(); pause > full || pause < full*3/4 {
			t.Errorf("pause %d is %s, want about %s", i, pause, full)
		}
	}
	b.Reset()
	if pause := b.Next(); pause > firstPause {
		t.Errorf("the first pause after a reset is %s", pause)
	}
}

func TestPausesDiffer(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[new(Backoff).Next()] = true
	}
	if len(seen) < 2 {
		t.Error("all clients come back at once")
	}
}

func TestPauseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Backoff{attempts: 10}
	if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
