package index

import (
	"slices"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// class says how the values of a built-in name are compared.
type class int

const (
	plainClass class = iota
	idClass          // a prefix is enough
	statusClass
	timeClass     // nanoseconds since 1970
	durationClass // seconds
	sizeClass     // bytes
	tagsClass     // any one of a list of texts
)

// Numbers of built-in names: part of the format of scan blobs.
const (
	idNumber = iota
	createdNumber
	statusNumber
	endedNumber
	nameNumber
	userNumber
	hostNumber
	commandNumber
	directoryNumber
	tagNumber
	noteNumber
	stepNumber
	commitsNumber
	sizeNumber
	parentNumber
	pythonNumber
	gitCommitNumber
	gitBranchNumber
	gitDirtyNumber
	gpuNumber
	exitCodeNumber
	primaryNumber  // not a name: the number of the experiment's own primary metric × 2, + 1 to maximize it
	durationNumber // not in blobs: worked out
	firstNumber    = 64
)

type builtin struct {
	name   string
	number uint64
	class  class
}

var builtins = []builtin{
	{"id", idNumber, idClass}, {"name", nameNumber, plainClass},
	{"created", createdNumber, timeClass}, {"started", createdNumber, timeClass}, {"ended", endedNumber, timeClass},
	{"duration", durationNumber, durationClass}, {"status", statusNumber, statusClass},
	{"user", userNumber, plainClass}, {"host", hostNumber, plainClass}, {"command", commandNumber, plainClass},
	{"directory", directoryNumber, plainClass}, {"tag", tagNumber, tagsClass}, {"note", noteNumber, plainClass},
	{"step", stepNumber, plainClass}, {"commits", commitsNumber, plainClass}, {"size", sizeNumber, sizeClass},
	{"parent", parentNumber, idClass}, {"python", pythonNumber, plainClass}, {"git.commit", gitCommitNumber, plainClass},
	{"git.branch", gitBranchNumber, plainClass}, {"git.dirty", gitDirtyNumber, plainClass}, {"gpu", gpuNumber, plainClass},
	{"exit_code", exitCodeNumber, plainClass},
}

// BuiltinNames lists the names of the query language that every experiment has.
func BuiltinNames() []string {
	names := make([]string, len(builtins))
	for i, b := range builtins {
		names[i] = b.name
	}
	return names
}

// names are the numbers of the names in scan blobs, by what they name.
type names struct {
	params, metrics map[string]uint64
}

// finder looks a name up in one of the maps of names.
type finder func(in map[string]uint64, name string) (uint64, bool)

func exactly(in map[string]uint64, name string) (uint64, bool) {
	number, ok := in[name]
	return number, ok
}

// ignoringCase finds a name if there is one spelling of it only.
func ignoringCase(in map[string]uint64, name string) (number uint64, ok bool) {
	for known, n := range in {
		if strings.EqualFold(known, name) {
			if ok {
				return 0, false
			}
			number, ok = n, true
		}
	}
	return number, ok
}

// meant returns what a name may mean, in order: built-in, metric, parameter; exact first, then ignoring case.
func (n names) meant(text string) (*builtin, []option) {
	for i := range builtins {
		if builtins[i].name == text {
			return &builtins[i], n.options(text, exactly)
		}
	}
	if options := n.options(text, exactly); len(options) > 0 {
		return nil, options
	}
	for i := range builtins {
		if strings.EqualFold(builtins[i].name, text) {
			return &builtins[i], nil
		}
	}
	return nil, n.options(text, ignoringCase)
}

// options returns the metrics and then the parameters that a name may mean.
func (n names) options(text string, find finder) []option {
	var options []option
	if rest, ok := strings.CutPrefix(text, "metric."); ok {
		options = n.metricOptions(options, rest, find)
	}
	if rest, ok := strings.CutPrefix(text, "param."); ok {
		options = n.paramOptions(options, rest, find)
	}
	return n.paramOptions(n.metricOptions(options, text, find), text, find)
}

// aggregates are the suffixes of metrics.
var aggregates = map[string]aggregate{"last": lastOf, "first": firstOf, "min": minOf, "max": maxOf, "best": bestOf}

// metricOptions appends a metric of exactly this name, then one with a suffix.
func (n names) metricOptions(options []option, text string, find finder) []option {
	if number, ok := find(n.metrics, text); ok {
		options = append(options, option{number: number, metric: true})
	}
	if dot := strings.LastIndexByte(text, '.'); dot > 0 {
		of, isAggregate := aggregates[strings.ToLower(text[dot+1:])]
		if number, ok := find(n.metrics, text[:dot]); ok && isAggregate {
			options = append(options, option{number: number, metric: true, of: of})
		}
	}
	return options
}

// paramOptions appends a parameter of exactly this name, then the elements of lists: layers.0, blocks.2.width.
func (n names) paramOptions(options []option, text string, find finder) []option {
	if number, ok := find(n.params, text); ok {
		options = append(options, option{number: number})
	}
	for dot := range len(text) {
		if text[dot] != '.' {
			continue
		}
		path := strings.Split(text[dot+1:], ".")
		if _, ok := parseIndex(path[0]); !ok {
			continue
		}
		if number, ok := find(n.params, text[:dot]); ok {
			options = append(options, option{number: number, path: path})
		}
	}
	return options
}

// parseIndex reads the place of an element in a list.
func parseIndex(text string) (int, bool) {
	i, err := strconv.ParseUint(text, 10, 31)
	return int(i), err == nil
}

// unknown is the error for a name that no experiment has.
func (n names) unknown(op, text string) error {
	candidates := BuiltinNames()
	for _, known := range []map[string]uint64{n.metrics, n.params} {
		for name := range known {
			if name != text {
				candidates = append(candidates, name)
			}
		}
	}
	slices.Sort(candidates)
	err := replicate.Errorf(replicate.Usage, "no experiment has %q", text)
	err.Op = op
	if near := replicate.Nearest(text, candidates); near != "" {
		err.Hint = "did you mean " + strconv.Quote(near) + "?"
	}
	return err
}
