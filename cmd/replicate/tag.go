package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

const tagHelp = `Gives experiments a tag, or with -d takes it away. Tags are shown by ls and found by -f 'tag = NAME'.

    replicate tag 673 9cc paper`

func tagCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "tag",
		Usage:       "give experiments a tag",
		ArgsUsage:   "ID... NAME",
		Description: tagHelp,
		Flags:       append([]cli.Flag{&cli.BoolFlag{Name: "delete", Aliases: []string{"d"}, Usage: "take the tag away"}}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 2, -1, "ID... NAME"); err != nil {
				return err
			}
			ids := c.Args().Slice()
			name := ids[len(ids)-1]
			tags, err := json.Marshal(map[string]bool{name: !c.Bool("delete")})
			if err != nil {
				return err
			}
			return w.setFields(c, ids[:len(ids)-1], map[string]json.RawMessage{"tags": tags})
		},
	}
}

const noteHelp = `Writes a note about an experiment, replacing the one it has. Without TEXT it is written in
$EDITOR, or read from stdin if that is no terminal.`

func noteCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "note",
		Usage:       "write a note about an experiment",
		ArgsUsage:   "ID [TEXT]",
		Description: noteHelp,
		Flags:       storageFlags(),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 2, "ID [TEXT]"); err != nil {
				return err
			}
			text := c.Args().Get(1)
			if c.NArg() == 1 {
				var err error
				if text, err = w.writtenNote(c); err != nil {
					return err
				}
			}
			note := replicate.AppendJSONString(nil, strings.TrimRight(text, "\n"))
			return w.setFields(c, c.Args().Slice()[:1], map[string]json.RawMessage{"note": note})
		},
	}
}

// setFields publishes facts about the experiments that ids name, after all were found.
func (w *world) setFields(c *cli.Context, ids []string, fields map[string]json.RawMessage) error {
	return w.with(c, func(s *session) error {
		records := make([]repository.Record, len(ids))
		for i, id := range ids {
			t, err := s.resolve(id)
			if err != nil {
				return err
			}
			if records[i], err = s.set(t.Experiment, fields); err != nil {
				return err
			}
		}
		return s.repo.Append(s.ctx, records...)
	})
}

// set makes the record that changes facts of an experiment: later than all that were set before, whatever the clocks say.
func (s *session) set(e *index.Experiment, fields map[string]json.RawMessage) (repository.Record, error) {
	at, err := s.repo.Now(s.ctx)
	if err != nil {
		return repository.Record{}, err
	}
	if least := e.LastSet.Add(time.Millisecond); least.After(at) {
		at = least
	}
	return repository.Record{Set: &repository.Set{Experiment: e.ID, At: at, By: s.w.user(), Fields: fields}}.Encode()
}

// writtenNote reads a note from stdin, or lets the user edit the one there is.
func (w *world) writtenNote(c *cli.Context) (string, error) {
	editor := w.getenv("EDITOR")
	if !w.inTerminal || editor == "" {
		text, err := io.ReadAll(bufio.NewReader(w.stdin))
		return string(text), err
	}
	s, err := w.open(c)
	if err != nil {
		return "", err
	}
	defer s.close()
	t, err := s.resolve(c.Args().First())
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "replicate-note-")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	if _, err := io.WriteString(file, t.Experiment.Note); err != nil {
		return "", err
	}
	if err := file.Close(); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(s.ctx, "sh", "-c", editor+` "$1"`, "sh", file.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run the editor %s: %w", editor, err)
	}
	text, err := os.ReadFile(file.Name())
	return string(text), err
}
