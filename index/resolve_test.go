package index

import (
	"testing"
	"time"

	"github.com/replicate/replicate"
)

func TestResolve(t *testing.T) {
	w := newWorld(t)
	loss := &replicate.Metric{Name: "loss", Goal: replicate.Minimize}
	a, b, c, d := id("4966"), id("67386ce"), id("9cce006"), id("67386ff")
	c0, c1, c2 := id("4c60398"), id("80f61fe"), id("b")
	w.add(
		experimentRecord(replicate.Experiment{ID: a, Created: start.Add(-2 * time.Minute), Name: "twin"}),
		experimentRecord(replicate.Experiment{ID: b, Created: start.Add(time.Minute), Name: "iris 2", Metric: loss}),
		experimentRecord(replicate.Experiment{ID: c, Name: "twin"}),
		experimentRecord(replicate.Experiment{ID: d, Name: "b"}),
		commitRecord(replicate.Commit{ID: c0, Experiment: b, Seq: 0, Step: 3, Metrics: values(t, `{"loss":0.1}`)}),
		commitRecord(replicate.Commit{ID: c1, Experiment: b, Seq: 1, Step: 3, Metrics: values(t, `{"loss":0.2}`)}),
		commitRecord(replicate.Commit{ID: c2, Experiment: a, Seq: 0, Step: replicate.NoStep}),
	)
	for _, tt := range []struct {
		name, ref          string
		experiment, commit replicate.ID
		want, hint         string
	}{
		{"whole id", string(b), b, "", "", ""},
		{"prefix", "67386c", b, "", "", ""},
		{"upper case", "67386CE", b, "", "", ""},
		{"one letter", "9", c, "", "", ""},
		{"commit", "4c", b, c0, "", ""},
		{"one letter of a commit", "8", b, c1, "", ""},
		{"name", "iris 2", b, "", "", ""},
		{"best", "67386ce@best", b, c0, "", ""},
		{"latest", "iris 2@latest", b, c1, "", ""},
		{"step: the newest of it", "67386c@3", b, c1, "", ""},
		{"newest", "@latest", b, "", "", ""},
		{"best of the newest", "@latest@best", b, c0, "", ""},
		{"no letter", "", "", "", "an id or name must not be empty", ""},
		{"ambiguous", "4", "", "", "4 is ambiguous", `4966000 experiment "twin", 2 minutes ago · 4c60398 commit, step 3`},
		{"ambiguous in seven digits", "67386", "", "", "67386 is ambiguous", `67386ce experiment "iris 2", now · 67386ff experiment "b", now`},
		{"two of one name", "twin", "", "", "twin is ambiguous", `4966000 experiment "twin", 2 minutes ago · 9cce006 experiment "twin", now`},
		{"a name that is a prefix", "b", "", "", "b is ambiguous", `67386ff experiment "b", now · b000000 commit, now`},
		{"unknown", "77", "", "", "no experiment or commit 77", ""},
		{"unknown name", "iris 3", "", "", "no experiment or commit iris 3", `did you mean "iris 2"?`},
		{"no id and no name", "%", "", "", "no experiment or commit %", ""},
		{"no best", "9cce@best", "", "", "9cce has no best commit", `a primary metric decides: metric=("loss", "minimize"), or metrics in replicate.yaml`},
		{"no commits", "9cce@latest", "", "", "9cce has no commits", ""},
		{"no such step", "67386ce@4", "", "", "67386ce has no commit of step 4", "its commits have step 3"},
		{"nonsense behind @", "67386ce@first", "", "", "67386ce@first is unknown", "behind @ stands best, latest or a step"},
		{"best of a commit", "4c@best", "", "", "4c is a commit, so @best has no meaning", ""},
		{"unknown@best", "77@best", "", "", "no experiment or commit 77", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := w.Resolve(t.Context(), tt.ref)
			switch {
			case tt.want != "":
				if err == nil || err.Error() != tt.want || replicate.HintOf(err) != tt.hint {
					t.Errorf("got  %v (%s)\nwant %s (%s)", err, replicate.HintOf(err), tt.want, tt.hint)
				}
			case err != nil:
				t.Error(err, replicate.HintOf(err))
			case got.Experiment.ID != tt.experiment || (got.Commit == nil) != (tt.commit == "") || got.Commit != nil && got.Commit.ID != tt.commit:
				t.Errorf("got %+v", got)
			}
		})
	}
	for ref, want := range map[string]replicate.Kind{"4": replicate.Ambiguous, "77": replicate.NotFound, "": replicate.Usage, "9cce@best": replicate.NotFound} {
		if _, err := w.Resolve(t.Context(), ref); replicate.KindOf(err) != want {
			t.Errorf("%q: kind %s", ref, replicate.KindOf(err))
		}
	}
}

// TestIDsThatShareSevenDigits are shown with as many as tell them apart.
func TestIDsThatShareSevenDigits(t *testing.T) {
	w := newWorld(t)
	w.add(experimentRecord(replicate.Experiment{ID: "67386ce1" + id("")[8:]}), experimentRecord(replicate.Experiment{ID: "67386ce2" + id("")[8:]}))
	_, err := w.Resolve(t.Context(), "67386ce")
	if got, want := replicate.HintOf(err), "67386ce1 experiment, now · 67386ce2 experiment, now"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "now", -time.Hour: "now", 40 * time.Second: "40 seconds ago", 90 * time.Second: "1 minute ago",
		3 * time.Hour: "3 hours ago", 29 * 24 * time.Hour: "29 days ago", 31 * 24 * time.Hour: "2026-10-23"} {
		if got := ago(start.Add(-d), start); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}
