package main

import (
	"bufio"
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

//go:embed completion
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

const completionHelp = `Prints what makes a shell complete commands, flags, hosts, ids of experiments with their age, and in filters and sort orders the names of
parameters and metrics. A bucket is not asked for that: known is what the last command saw.

    source <(replicate completion bash)             in ~/.bashrc
    source <(replicate completion zsh)              in ~/.zshrc, behind compinit
    replicate completion fish | source              in ~/.config/fish/config.fish`

func completionCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print what makes a shell complete commands and ids",
		ArgsUsage:   "SHELL",
		Description: completionHelp,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "SHELL"); err != nil {
				return err
			}
			shell := c.Args().First()
			if !slices.Contains(shells, shell) {
				return replicate.Errorf(replicate.Usage, "no completion for %q", shell).WithHint("there is one for %s", strings.Join(shells, ", "))
			}
			script, err := completionScripts.ReadFile("completion/" + shell)
			if err != nil {
				return err
			}
			_, err = w.stdout.Write(script)
			return err
		},
	}
}

// completeCommand is what those scripts ask: it prints the candidates for the last word, each with a tab and what to say about it.
func completeCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:   "complete",
		Hidden: true,
		Flags:  storageFlags(),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, -1, "-- WORD..."); err != nil {
				return err
			}
			words := c.Args().Slice()[1:] // the first is the "--" of the scripts
			if len(words) == 0 {
				return nil
			}
			m := &completer{w: w, c: c, words: words[:len(words)-1], word: words[len(words)-1]}
			return w.print(func(out *bufio.Writer) error {
				for _, found := range m.candidates() {
					fmt.Fprintf(out, "%s\t%s\n", found.word, found.about)
				}
				return nil
			})
		},
	}
}

// A candidate may stand for the word that is being typed.
type candidate struct{ word, about string }

// A completer completes the word behind some words.
type completer struct {
	w     *world
	c     *cli.Context
	words []string
	word  string
}

// mostCandidates bounds what a person would have to read.
const mostCandidates = 500

// candidates returns what the word may become; nothing where it is a file, or anything, and no word that a shell would have to have quoted.
func (m *completer) candidates() (fit []candidate) {
	for _, found := range m.all() {
		if strings.HasPrefix(found.word, m.word) && len(fit) < mostCandidates && replicate.CommandLine([]string{found.word}) == found.word {
			fit = append(fit, found)
		}
	}
	return fit
}

func (m *completer) all() []candidate {
	known := commands(m.w)
	if len(m.words) == 0 {
		return commandNames(known)
	}
	i := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(m.words[0]) })
	if i < 0 || slices.Contains(m.words, "--") {
		return nil
	}
	command := known[i]
	last := m.words[len(m.words)-1]
	switch {
	case strings.HasPrefix(last, "-") && takesValue(command, last):
		return m.values(strings.TrimLeft(last, "-"))
	case strings.HasPrefix(m.word, "-"):
		return flagsOf(command)
	case strings.Contains(command.ArgsUsage, "ID"), strings.Contains(command.ArgsUsage, "EXPERIMENT"):
		return m.experiments()
	case command.Name == "completion":
		return plainCandidates(shells)
	}
	return nil
}

func commandNames(commands []*cli.Command) (all []candidate) {
	for _, c := range commands {
		if !c.Hidden {
			all = append(all, candidate{c.Name, c.Usage})
		}
	}
	return all
}

func flagsOf(command *cli.Command) (all []candidate) {
	for _, f := range command.Flags {
		_, usage, _ := strings.Cut(flagLine(f), "\t")
		for _, name := range f.Names() {
			if len(name) > 1 {
				all = append(all, candidate{"--" + name, usage})
			}
		}
	}
	return all
}

func plainCandidates(words []string) (all []candidate) {
	for _, word := range words {
		all = append(all, candidate{word: word})
	}
	return all
}

// values returns what may follow a flag.
func (m *completer) values(flag string) []candidate {
	switch flag {
	case "f", "filter":
		return m.names()
	case "s", "sort":
		return plainCandidates(m.sortOrders())
	case "H", "host":
		p, err := m.w.project(m.c)
		if err != nil {
			return nil
		}
		return plainCandidates(sortedKeys(p.Config.Hosts))
	case "format":
		return plainCandidates([]string{exportTree, exportCSV, exportJSONL})
	}
	return nil
}

func (m *completer) sortOrders() (orders []string) {
	for _, name := range m.names() {
		orders = append(orders, name.word, name.word+"-desc")
	}
	return orders
}

// names returns the names of the query language.
func (m *completer) names() (all []candidate) {
	metrics, params := map[string]bool{}, map[string]bool{}
	for _, e := range m.list() {
		for _, metric := range e.Metrics {
			metrics[metric.Name] = true
		}
		for _, p := range e.Params.Flat(".") {
			params[p.Name] = true
		}
	}
	for _, name := range sortedKeys(metrics) {
		all = append(all, candidate{name, "metric"})
	}
	for _, name := range sortedKeys(params) {
		all = append(all, candidate{name, "parameter"})
	}
	for _, name := range index.BuiltinNames() {
		all = append(all, candidate{name, "of every experiment"})
	}
	return all
}

// experiments returns the ids and names of experiments, the newest first; behind an @ what may follow one.
func (m *completer) experiments() (all []candidate) {
	if at := strings.LastIndexByte(m.word, '@'); at > 0 {
		return []candidate{{m.word[:at] + "@best", "its best commit"}, {m.word[:at] + "@latest", "its latest commit"}}
	}
	list := m.list()
	slices.Reverse(list)
	for _, e := range list {
		about := strings.TrimSpace(e.Name + " " + ago(m.w.now(), e.Created))
		id := e.ID.Short()
		if len(m.word) > len(id) {
			id = string(e.ID)
		}
		all = append(all, candidate{id, about})
		if e.Name != "" {
			all = append(all, candidate{e.Name, about})
		}
	}
	if len(list) > 0 {
		all = append(all, candidate{"@latest", "the newest experiment"})
	}
	return all
}

// list returns the experiments that are known without asking a network; none if anything is wrong, as the line that is being typed
// is no place to say so.
func (m *completer) list() []*index.Experiment {
	for i, word := range m.words[:len(m.words)-1] {
		switch word {
		case "-S", "--storage-url":
			_ = m.c.Set("storage-url", m.words[i+1])
		case "-D", "--source-directory":
			_ = m.c.Set("source-directory", m.words[i+1])
		}
	}
	s, err := m.w.openNear(m.c)
	if err != nil {
		return nil
	}
	defer s.close()
	experiments, _ := s.list(index.Query{})
	return experiments
}

// openNear is open for what must answer at once: a storage that is far away is not asked, and its index is as the last command left it.
func (w *world) openNear(c *cli.Context) (*session, error) {
	p, err := w.project(c)
	if err != nil {
		return nil, err
	}
	local, err := isLocal(c.Context, p.StorageURL)
	if local || err != nil {
		return w.open(c)
	}
	last, ok := w.recall(p.StorageURL)
	if !ok {
		return nil, replicate.Errorf(replicate.NotFound, "nothing is known of %s", p.StorageURL)
	}
	store, err := w.openStore(c.Context, p.StorageURL, offlinePatience)
	if err != nil {
		return nil, err
	}
	s := &session{w: w, ctx: c.Context, stop: func() {}, project: p, repo: repository.Known(store, last.ID)}
	s.index, err = index.Open(s.ctx, p.Cache(last.ID), s.repo, indexOptions(p.Config, w.now))
	return s, err
}
