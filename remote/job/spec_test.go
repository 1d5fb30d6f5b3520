package job

import (
	"testing"
	"time"
)

func TestASupervisorSeesHowFarItsClockIsAhead(t *testing.T) {
	now := time.Unix(1764325000, 0)
	for _, tt := range []struct {
		name  string
		spec  Spec
		ahead time.Duration
	}{
		{"Same", Spec{After: now, Came: now.Add(time.Second)}, 0},
		{"SlowLine", Spec{After: now, Came: now.Add(50 * time.Second)}, 0},
		{"Ahead", Spec{After: now, Came: now.Add(time.Hour)}, time.Hour},
		{"Behind", Spec{After: now, Came: now.Add(-time.Hour)}, -time.Hour},
		{"OlderClient", Spec{Came: now}, 0},
		{"OlderSupervisor", Spec{After: now}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.spec.Ahead(); got != tt.ahead {
				t.Errorf("ahead by %v", got)
			}
		})
	}
}
