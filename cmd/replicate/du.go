package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const duHelp = `Shows what experiments hold in the storage: what each holds alone, which gc can free when it is deleted; what it
shares with others; and both together. The experiment that holds most alone is the last. Then what the repository holds: live,
which something needs; dead, which gc can free; and waiting, which gc has condemned. Sizes are those of whole packs, compressed.`

func duCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "du",
		Usage:       "show what experiments hold alone and shared",
		ArgsUsage:   "[ID...]",
		Description: duHelp,
		Flags:       append([]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "one JSON object, sizes in bytes"}}, storageFlags()...),
		Action: func(c *cli.Context) error {
			return w.with(c, func(s *session) error { return s.du(c.Args().Slice(), c.Bool("json")) })
		},
	}
}

// A duLine is what one experiment holds, in bytes.
type duLine struct {
	ID     replicate.ID `json:"id"`
	Name   string       `json:"name"`
	Alone  int64        `json:"alone"`
	Shared int64        `json:"shared"`
	Total  int64        `json:"total"`
}

func (s *session) du(refs []string, asJSON bool) error {
	var ids []replicate.ID
	for _, ref := range refs {
		t, err := s.resolve(ref)
		if err != nil {
			return err
		}
		ids = append(ids, t.Experiment.ID)
	}
	var usage repository.Usage
	if s.repo != nil {
		progress := s.w.progress("")
		var err error
		usage, err = s.repo.Usage(s.ctx, progress.stage)
		progress.done()
		if err != nil {
			return err
		}
	}
	lines, err := s.duLines(usage, ids)
	if err != nil {
		return err
	}
	return s.w.print(func(out *bufio.Writer) error {
		if asJSON {
			return writeDuJSON(out, lines, usage)
		}
		s.writeDu(out, lines, usage)
		return nil
	})
}

// duLines returns the lines of some experiments, of all without ids.
func (s *session) duLines(usage repository.Usage, ids []replicate.ID) ([]duLine, error) {
	lines := []duLine{}
	for _, u := range usage.Experiments {
		if len(ids) > 0 && !slices.Contains(ids, u.ID) {
			continue
		}
		line := duLine{ID: u.ID, Alone: u.Alone.Bytes, Shared: u.Shared.Bytes, Total: u.Alone.Bytes + u.Shared.Bytes}
		e, err := s.index.Experiment(s.ctx, u.ID)
		switch {
		case err == nil:
			line.Name = e.Name
		case replicate.KindOf(err) != replicate.NotFound: // deleted, with something that came later
			return nil, err
		}
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b duLine) int {
		return cmp.Or(cmp.Compare(a.Alone, b.Alone), cmp.Compare(a.Total, b.Total), cmp.Compare(a.ID, b.ID))
	})
	return lines, nil
}

func (s *session) writeDu(out *bufio.Writer, lines []duLine, usage repository.Usage) {
	if len(lines) > 0 {
		t := new(table)
		column := func(name string, cell func(duLine) string) {
			cells := make([]string, len(lines))
			for i, l := range lines {
				cells[i] = cell(l)
			}
			t.add(name, cells)
		}
		column("experiment", func(l duLine) string { return l.ID.Short() })
		if slices.ContainsFunc(lines, func(l duLine) bool { return l.Name != "" }) {
			column("name", func(l duLine) string { return l.Name })
		}
		column("alone", func(l duLine) string { return size(l.Alone) })
		column("shared", func(l duLine) string { return size(l.Shared) })
		column("total", func(l duLine) string { return size(l.Total) })
		t.write(out, s.w.width)
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "live:     %s\n", held(usage.Live))
	fmt.Fprintf(out, "dead:     %s\n", held(usage.Dead))
	fmt.Fprintf(out, "waiting:  %s\n", held(usage.Waiting))
}

func writeDuJSON(out *bufio.Writer, lines []duLine, usage repository.Usage) error {
	return json.NewEncoder(out).Encode(struct {
		Experiments []duLine         `json:"experiments"`
		Live        repository.Packs `json:"live"`
		Dead        repository.Packs `json:"dead"`
		Waiting     repository.Packs `json:"waiting"`
	}{lines, usage.Live, usage.Dead, usage.Waiting})
}
