package main

import (
	"bufio"
	"bytes"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

const logHelp = `Records metrics at a step, without files, into the experiment that REPLICATE_EXPERIMENT_ID names:

    replicate log step=1 loss=0.31
    ./train | replicate log -

With "-" it reads one JSON object a line from stdin, {"step":1,"loss":0.31}, until the end; lines that are
none are named on stderr, and the exit code is 1. Without a step it is the one after the last.`

// maxPointsAtOnce bounds what one write to the stream holds.
const maxPointsAtOnce = 1000

func logCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "log",
		Usage:       "record metrics",
		ArgsUsage:   "[step=N] NAME=VALUE... | -",
		Description: logHelp,
		Flags:       storageFlags(),
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				return replicate.Errorf(replicate.Usage, "log wants metrics").WithHint("replicate log step=1 loss=0.31, or replicate log - for lines of JSON; replicate logs shows what a run prints")
			}
			if len(args) == 1 && args[0] == "-" {
				return w.logLines(c)
			}
			values, err := assignments(args)
			if err != nil {
				return err
			}
			p, err := w.point(values)
			if err != nil {
				return err
			}
			join := recorder.Join
			if p.Step != replicate.NoStep {
				join = recorder.JoinToLog
			}
			s, err := w.join(c, join)
			if err != nil {
				return err
			}
			s.Log(p)
			return s.End(c.Context, "", nil)
		},
	}
}

func (w *world) point(values replicate.Values) (repository.Point, error) {
	step, metrics, err := takeStep(values)
	return repository.Point{Step: step, Time: w.now(), Metrics: metrics.Flat("/")}, err
}

// logLines records every line of stdin as it comes.
func (w *world) logLines(c *cli.Context) error {
	s, err := w.join(c, recorder.Join)
	if err != nil {
		return err
	}
	s.Keep()
	lines := bufio.NewReaderSize(w.stdin, 1<<16)
	var points []repository.Point
	for number := 1; ; number++ {
		line, readErr := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			p, err := w.pointOf(line)
			if err != nil {
				w.warn(&replicate.Error{Op: "line", Path: strconv.Itoa(number), Err: err})
			} else {
				points = append(points, p)
			}
		}
		if lines.Buffered() == 0 || len(points) == maxPointsAtOnce || readErr != nil {
			s.Log(points...)
			points = nil
		}
		if readErr == io.EOF {
			break
		} else if readErr != nil {
			w.warn(&replicate.Error{Op: "read", Path: "stdin", Err: readErr})
			break
		}
	}
	return s.End(c.Context, "", nil)
}

func (w *world) pointOf(line []byte) (repository.Point, error) {
	if len(line) > recorder.MaxLine {
		return repository.Point{}, replicate.Errorf(replicate.Usage, "longer than %d MiB", recorder.MaxLine>>20)
	}
	v, err := replicate.ParseValue(line)
	if err != nil {
		return repository.Point{}, err
	}
	if v.Kind() != replicate.MapKind {
		return repository.Point{}, replicate.Errorf(replicate.Usage, "not a JSON object")
	}
	return w.point(v.Map())
}
