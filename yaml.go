package replicate

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// This file reads YAML strictly, with errors that name file and line. Decoding into structs would report several
// mistakes at once, in words that speak of Go types.

// A yamlFile is the name of a file, for errors.
type yamlFile struct{ name string }

// node is a place in a YAML file.
type node yaml.Node

func (n *node) isScalar() bool { return n.Kind == yaml.ScalarNode }

func (n *node) isNull() bool { return n.isScalar() && n.Tag == "!!null" }

// what names the type of n for people.
func (n *node) what() string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return n.Tag
}

// A reader takes the value n of a key.
type reader func(key string, n *node) error

// fields says how to read the value of each key of a map.
type fields map[string]reader

// renamed keys are those of other versions and programs, with what they are called here.
var renamed = map[string]string{"repository": "storage"}

// parse returns the one document of data, nil if there is none.
func (y yamlFile) parse(data []byte) (*node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	err := decoder.Decode(&document)
	switch {
	case err == io.EOF:
		return nil, nil
	case err != nil:
		return nil, y.syntax(data, err)
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, y.errorf((*node)(&second), "second document").WithHint(`remove the "---"`)
	case err != io.EOF:
		return nil, y.syntax(data, err)
	}
	return resolve(document.Content[0]), nil
}

// resolve returns what an alias stands for.
func resolve(n *yaml.Node) *node {
	if n.Kind == yaml.AliasNode {
		return (*node)(n.Alias)
	}
	return (*node)(n)
}

var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// mistakes says in words of people what the parser's words for the mistakes made most often mean, and what mends them.
var mistakes = map[string]struct{ mistake, hint string }{
	"did not find expected node content":                    {"a value is missing", `is a "[" or "{" not closed?`},
	"did not find expected ',' or ']'":                      {`a list is not closed, or lacks a comma`, `look for the "["`},
	"did not find expected ',' or '}'":                      {`a map is not closed, or lacks a comma`, `look for the "{"`},
	"found unexpected end of stream":                        {"a quote is not closed", "a quote inside quotes of the same kind is written twice"},
	"did not find expected key":                             {"a line is indented otherwise than its neighbours", "the keys of one map begin in the same column"},
	"did not find expected '-' indicator":                   {"a line is indented otherwise than its neighbours", "the elements of one list begin in the same column"},
	"mapping values are not allowed in this context":        {`a second ": " in one value, or a line indented too far`, "put text that contains it into quotes"},
	"could not find expected ':'":                           {"a key without a value", `write "key: value", with a space behind the colon`},
	"found character that cannot start any token":           {"a tab, or text that begins with @ or `", "indent with spaces, and put such text into quotes"},
	"found a tab character that violates indentation":       {"a tab", "indent with spaces"},
	"did not find expected alphabetic or numeric character": {"a * or & that names nothing", "put text that begins with it into quotes"},
}

// syntax puts an error of the parser into our form, and into our words where we have them.
func (y yamlFile) syntax(data []byte, err error) error {
	e := &Error{Path: y.name, Kind: Usage, Err: err}
	if m := syntaxError.FindStringSubmatch(err.Error()); m != nil {
		known := mistakes[m[2]]
		e.Err, e.Hint = fmt.Errorf("not YAML: %s", cmp.Or(known.mistake, m[2])), known.hint
		if m[1] != "" {
			e.Path += ":" + m[1]
		}
	}
	for line := range bytes.Lines(data) {
		item := strings.TrimLeft(strings.TrimSpace(string(line)), "- ")
		if strings.HasPrefix(item, "*") {
			return e.WithHint("put patterns into quotes: %q", item)
		}
	}
	return e
}

func (y yamlFile) errorf(n *node, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Path: fmt.Sprintf("%s:%d", y.name, n.Line), Kind: Usage, Err: err}
}

// mapping reads a map with known keys; what names it in errors. A null, also no document at all, is a map without keys, and a key
// without value counts as not written.
func (y yamlFile) mapping(n *node, what string, known fields) error {
	return y.each(n, what, func(key string, value *node) error {
		if value.isNull() {
			return nil
		}
		return known[key](key, value)
	}, slices.Sorted(maps.Keys(known))...)
}

// each calls read for each key of a map, none of them twice; with known keys, for no others.
func (y yamlFile) each(n *node, what string, read reader, known ...string) error {
	switch {
	case n == nil || n.isNull():
		return nil
	case n.Kind != yaml.MappingNode && what == "":
		return y.errorf(n, "want keys and values, got %s", n.what())
	case n.Kind != yaml.MappingNode:
		return y.errorf(n, "%s must be a map, not %s", what, n.what())
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), resolve(n.Content[i+1])
		switch {
		case !key.isScalar():
			return y.errorf(key, "a key must be text, not %s", key.what())
		case seen[key.Value] > 0:
			return y.errorf(key, "key %q is there twice, first in line %d", key.Value, seen[key.Value])
		case known != nil && !slices.Contains(known, key.Value):
			return y.unknown(key, known)
		}
		seen[key.Value] = key.Line
		if err := read(key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

func (y yamlFile) unknown(key *node, known []string) error {
	err := y.errorf(key, "unknown key %q", key.Value)
	if new, ok := renamed[key.Value]; ok && slices.Contains(known, new) {
		return err.WithHint("did you mean %q?", new)
	}
	err.Hint = DidYouMean(key.Value, known)
	return err
}

func (y yamlFile) typeError(key string, n *node, want string) error {
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return y.errorf(n, "%s is a tag of YAML", n.Tag).WithHint("put patterns into quotes: %q", n.Tag)
	}
	return y.errorf(n, "%s must be %s, not %s", key, want, n.what())
}

func (y yamlFile) text(into *string) reader {
	return func(key string, n *node) error {
		if !n.isScalar() || n.Tag != "!!str" {
			return y.typeError(key, n, "text")
		}
		*into = n.Value
		return nil
	}
}

// version reads text that looks like a number as it is written: 3.10 is not 3.1.
func (y yamlFile) version(into *string) reader {
	return func(key string, n *node) error {
		if !n.isScalar() || n.Tag != "!!str" && n.Tag != "!!float" && n.Tag != "!!int" {
			return y.typeError(key, n, "a version")
		}
		*into = n.Value
		return nil
	}
}

func (y yamlFile) bool(into *bool) reader {
	return func(key string, n *node) error {
		if (*yaml.Node)(n).Decode(into) != nil {
			return y.typeError(key, n, "true or false")
		}
		return nil
	}
}

// list calls read for each element.
func (y yamlFile) list(read reader) reader {
	return func(key string, n *node) error {
		if n.Kind != yaml.SequenceNode {
			return y.typeError(key, n, "a list")
		}
		for _, e := range n.Content {
			if err := read("an element of "+key, resolve(e)); err != nil {
				return err
			}
		}
		return nil
	}
}

func (y yamlFile) texts(into *[]string) reader {
	return y.list(func(key string, n *node) error {
		var s string
		err := y.text(&s)(key, n)
		*into = append(*into, s)
		return err
	})
}

// child returns the value of a key of a map, or the map itself.
func child(n *node, key string) *node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if resolve(n.Content[i]).Value == key {
			return resolve(n.Content[i+1])
		}
	}
	return n
}
