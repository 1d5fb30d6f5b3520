package main

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// assignments reads arguments of the form name=value, for init, log and commit. Dots in names stay.
func assignments(args []string) (replicate.Values, error) {
	var values replicate.Values
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, replicate.Errorf(replicate.Usage, "%q is not name=value", arg)
		}
		values = values.Set(strings.ToValidUTF8(name, "\uFFFD"), parseValue(text))
	}
	return values, nil
}

// isBareNumber matches what people type for numbers that JSON refuses: .5 and 1.
var isBareNumber = regexp.MustCompile(`^-?(\.[0-9]+|[0-9]+\.)([eE][+-]?[0-9]+)?$`)

// parseValue reads a value as people type it: a JSON number, true, false, null or quoted text; nan, inf, -inf; anything else
// is text.
func parseValue(s string) replicate.Value {
	switch strings.ToLower(s) {
	case "nan":
		return replicate.Float(math.NaN())
	case "inf", "infinity":
		return replicate.Float(math.Inf(1))
	case "-inf", "-infinity":
		return replicate.Float(math.Inf(-1))
	}
	if strings.HasPrefix(s, `"`) {
		var text string
		if json.Unmarshal([]byte(s), &text) == nil {
			return replicate.Text(text)
		}
		return replicate.Text(s)
	}
	if isBareNumber.MatchString(s) {
		f, _ := strconv.ParseFloat(s, 64) // out of range: an infinity, as for other numbers
		return replicate.Float(f)
	}
	v, err := replicate.ParseValue([]byte(s))
	if err != nil || v.Kind() == replicate.ListKind || v.Kind() == replicate.MapKind {
		return replicate.Text(s)
	}
	return v
}

// nested splits names at dots into maps: optimizer.lr=0.1 is {"optimizer":{"lr":0.1}}. A name stays whole if its beginning is a
// name of its own, or if it has empty parts.
func nested(flat replicate.Values) replicate.Values {
	var out replicate.Values
	for _, m := range flat {
		path := strings.Split(m.Name, ".")
		whole := slices.Contains(path, "")
		for i := range path[1:] {
			_, taken := flat.Get(strings.Join(path[:i+1], "."))
			whole = whole || taken
		}
		if whole {
			path = []string{m.Name}
		}
		out = insert(out, path, m.Value)
	}
	return out
}

func insert(into replicate.Values, path []string, value replicate.Value) replicate.Values {
	if len(path) > 1 {
		below, _ := into.Get(path[0])
		value = replicate.Map(insert(below.Map(), path[1:], value))
	}
	return into.Set(path[0], value)
}
