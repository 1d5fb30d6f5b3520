package view

import (
	"time"

	"github.com/replicate/replicate"
)

// appendPretty appends v as JSON that people and diff can read: names sorted, one on a line, two spaces a level. Lists of
// plain values stay on one line.
func appendPretty(dst []byte, v replicate.Value, indent string) []byte {
	inner := indent + "  "
	switch {
	case v.Kind() == replicate.MapKind && len(v.Map()) > 0:
		dst = append(dst, '{')
		for i, m := range v.Map().Sorted() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(dst, '\n'), inner...)
			dst = append(replicate.AppendJSONString(dst, m.Name), ": "...)
			dst = appendPretty(dst, m.Value, inner)
		}
		return append(append(append(dst, '\n'), indent...), '}')
	case v.Kind() == replicate.ListKind && !plain(v.List()):
		dst = append(dst, '[')
		for i, e := range v.List() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(dst, '\n'), inner...)
			dst = appendPretty(dst, e, inner)
		}
		return append(append(append(dst, '\n'), indent...), ']')
	}
	return v.AppendJSON(dst)
}

// plain reports whether a list has neither maps nor lists in it.
func plain(list []replicate.Value) bool {
	for _, e := range list {
		if e.Kind() == replicate.MapKind || e.Kind() == replicate.ListKind {
			return false
		}
	}
	return true
}

// document is a JSON file.
func document(members replicate.Values) []byte {
	return append(appendPretty(nil, replicate.Map(members), ""), '\n')
}

// The values of a document. What is not known is null.

func textOrNull(s string) replicate.Value {
	if s == "" {
		return replicate.Value{}
	}
	return replicate.Text(s)
}

func timeOrNull(t time.Time) replicate.Value {
	if t.IsZero() {
		return replicate.Value{}
	}
	return replicate.Text(t.UTC().Format(time.RFC3339Nano))
}

func stepOrNull(s replicate.Step) replicate.Value {
	if s == replicate.NoStep {
		return replicate.Value{}
	}
	return replicate.Int(int64(s))
}

func texts(list []string) replicate.Value {
	values := make([]replicate.Value, len(list))
	for i, s := range list {
		values[i] = replicate.Text(s)
	}
	return replicate.List(values)
}

func member(name string, v replicate.Value) replicate.Member {
	return replicate.Member{Name: name, Value: v}
}
