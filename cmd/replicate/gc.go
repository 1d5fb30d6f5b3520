package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate/storage/repository"
)

const gcHelp = `Frees the space of what was deleted and of what nothing needs. On a disk of this machine it does so at once. In a bucket, and on a
disk that other machines share, it does the steps that are due and says when the next one is: what nothing needs and is older than
seven days is condemned; a day later, and within six hours, another gc deletes what nobody has needed again. It is safe beside
programs that record, and may be interrupted.`

func gcCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "gc",
		Usage:       "free the space of what was deleted",
		Description: gcHelp,
		Flags:       append([]cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "say what would be freed, and change nothing"}}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0, "no arguments"); err != nil {
				return err
			}
			return w.with(c, func(s *session) error { return s.gc(c.Bool("dry-run")) })
		},
	}
}

func (s *session) gc(dry bool) error {
	if s.repo == nil {
		s.w.say("no experiments found")
		return nil
	}
	if !dry {
		if err := s.repo.Merge(s.ctx); err != nil {
			return err
		}
	}
	line := s.w.progress("")
	report, err := s.repo.GC(s.ctx, repository.GCOptions{DryRun: dry, Progress: line.stage})
	line.done()
	if err != nil {
		return err
	}
	for _, text := range gcLines(report, dry) {
		s.w.say("%s", text)
	}
	return nil
}

// gcLines says what a collection did, or would do, and what comes next.
func gcLines(r repository.GCReport, dry bool) (lines []string) {
	say := func(parts ...string) { lines = append(lines, strings.Join(parts, "")) }
	would := ""
	if dry {
		would = "would have "
	}
	if r.Deleted.Count > 0 {
		say(would, "freed ", held(r.Deleted))
	}
	if r.Busy {
		say("programs are recording at this moment: gc again later frees more at once")
	}
	if r.Condemned.Count > 0 {
		say(would, "condemned ", held(r.Condemned))
	}
	if r.Waiting.Count > 0 {
		say(held(r.Waiting), " are condemned and wait")
	}
	if !r.Due.IsZero() {
		say("replicate gc deletes from ", moment(r.Due), " until ", moment(r.Until), " what nobody has needed again")
	}
	if r.Young.Count > 0 {
		say(held(r.Young), " are needed by nothing, and can be condemned from ", moment(r.YoungAt), " on")
	}
	if len(lines) == 0 {
		say("nothing to free")
	}
	return lines
}

// held returns "46 MB in 3 packs".
func held(p repository.Packs) string { return size(p.Bytes) + " in " + plural(p.Count, "pack") }

// moment returns a time that matters to a few minutes.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }
