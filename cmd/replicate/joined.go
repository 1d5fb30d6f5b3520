package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

// joinVariable names the experiment that log, commit, stop and the programs inside a wrapped command record into.
const joinVariable = "REPLICATE_EXPERIMENT_ID"

// A joinFunc is recorder.Join or recorder.JoinToLog.
type joinFunc func(ctx context.Context, ref, dir string, o recorder.Options) (*recorder.Session, error)

// join takes part in the experiment that REPLICATE_EXPERIMENT_ID names, for log, commit and stop.
func (w *world) join(c *cli.Context, join joinFunc) (*recorder.Session, error) {
	id := w.getenv(joinVariable)
	if id == "" {
		return nil, replicate.Errorf(replicate.Usage, "%s: REPLICATE_EXPERIMENT_ID is not set", c.Command.Name).
			WithHint("export REPLICATE_EXPERIMENT_ID=$(replicate init), or run inside replicate init -- COMMAND")
	}
	dir := w.dir
	if d := c.String("source-directory"); d != "" {
		dir = w.abs(d)
	}
	o := w.recorderOptions(c.String("storage-url"))
	if o.StorageFlag != "" {
		url, err := project.URL(o.StorageFlag, w.dir)
		if err != nil {
			return nil, err
		}
		o.StorageFlag = url
	}
	return join(c.Context, id, dir, o)
}

// takeStep takes the assignment called step out of metrics.
func takeStep(values replicate.Values) (replicate.Step, replicate.Values, error) {
	step := replicate.NoStep
	var metrics replicate.Values
	for _, m := range values {
		if m.Name != "step" {
			metrics = append(metrics, m)
			continue
		}
		i, ok := m.Value.Int64()
		if !ok {
			return 0, nil, replicate.Errorf(replicate.Usage, "step %s is not a whole number", m.Value)
		}
		step = replicate.Step(i)
	}
	return step, metrics, nil
}
