package legacy

import (
	"bytes"
	"math"

	"github.com/replicate/replicate"
)

// parse reads the JSON that Python and Go wrote: Python wrote bare NaN, Infinity and -Infinity.
func parse(data []byte) (replicate.Value, error) { return replicate.ParseValue(strict(data)) }

// The words that are floats, and those of them that are none in the encoding of values until a backslash stands in front.
var words = [][]byte{[]byte("NaN"), []byte("-Infinity"), []byte("Infinity")}

// strict makes the encoding of values of what Python wrote: bare words become texts, and texts that are such words get the backslash that
// tells them from floats. What is no JSON stays so.
func strict(data []byte) []byte {
	out := make([]byte, 0, len(data)+16)
	for i := 0; i < len(data); {
		if data[i] == '"' {
			n := stringEnd(data[i:])
			text := data[i : i+n]
			if isWord(text) && !isName(data[i+n:]) {
				out = append(out, `"\\`...)
				text = text[1:]
			}
			out = append(out, text...)
			i += n
			continue
		}
		if w := wordAt(data[i:]); w != nil {
			out = append(append(append(out, '"'), w...), '"')
			i += len(w)
			continue
		}
		out = append(out, data[i])
		i++
	}
	return out
}

// stringEnd is how long the string literal is that data begins with.
func stringEnd(data []byte) int {
	for i := 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// isWord reports whether a literal is backslashes and one of the words.
func isWord(literal []byte) bool {
	text := bytes.TrimLeft(bytes.Trim(literal, `"`), `\`)
	return bytes.Equal(text, words[0]) || bytes.Equal(text, words[1]) || bytes.Equal(text, words[2])
}

// isName reports whether what stands before rest is the name of a member.
func isName(rest []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte(":")) }

func wordAt(data []byte) []byte {
	for _, w := range words {
		if bytes.HasPrefix(data, w) {
			return w
		}
	}
	return nil
}

// bracketed returns values in which the texts that Go wrote for floats are these floats.
func bracketed(v replicate.Value) replicate.Value {
	switch v.Kind() {
	case replicate.TextKind:
		switch v.Text() {
		case "[NaN]":
			return replicate.Float(math.NaN())
		case "[+Infinity]":
			return replicate.Float(math.Inf(1))
		case "[-Infinity]":
			return replicate.Float(math.Inf(-1))
		}
	case replicate.ListKind:
		list := make([]replicate.Value, len(v.List()))
		for i, e := range v.List() {
			list[i] = bracketed(e)
		}
		return replicate.List(list)
	case replicate.MapKind:
		return replicate.Map(bracketedAll(v.Map()))
	}
	return v
}

func bracketedAll(vs replicate.Values) replicate.Values {
	all := make(replicate.Values, len(vs))
	for i, m := range vs {
		all[i] = replicate.Member{Name: m.Name, Value: bracketed(m.Value)}
	}
	return all
}
