package replicate

import (
	"math"
	"strconv"
	"unicode/utf8"
)

// This file is the one JSON encoding of values: protocol, records, --json. It is strict JSON in which
//
//   - floats always carry "." or "e" and ints never do: 1.0, -0.0, 1e+22, 7
//   - NaN and the infinities are the strings "NaN", "Infinity", "-Infinity"
//   - a real string made of backslashes and one of these words gets one more backslash in front
//   - ints have any size up to MaxDigits; strings are UTF-8, and only what JSON demands is escaped
//
// encoding/json does none of the first two and escapes <, > and &.

// MaxDigits is how many digits an int may have; longer ones are texts. It is Python's own limit.
const MaxDigits = 4300

// AppendJSON appends v in the encoding of values.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case BoolKind:
		return strconv.AppendBool(dst, v.num == 1)
	case IntKind:
		if v.text != "" {
			return append(dst, v.text...)
		}
		return strconv.AppendInt(dst, int64(v.num), 10)
	case FloatKind:
		return appendFloat(dst, math.Float64frombits(v.num))
	case TextKind:
		if isSpecial(v.text) {
			return AppendJSONString(dst, `\`+v.text)
		}
		return AppendJSONString(dst, v.text)
	case ListKind:
		dst = append(dst, '[')
		for i, e := range v.sub.list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.AppendJSON(dst)
		}
		return append(dst, ']')
	case MapKind:
		return v.sub.members.AppendJSON(dst)
	}
	return append(dst, "null"...)
}

// AppendJSON appends vs as a JSON object in its own order.
func (vs Values) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i, m := range vs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJSONString(dst, m.Name)
		dst = append(dst, ':')
		dst = m.Value.AppendJSON(dst)
	}
	return append(dst, '}')
}

// MarshalJSON makes encoding/json write v in the encoding of values, but for <, > and &, which it escapes in all that it is given unless it
// is told SetEscapeHTML(false). Both read the same.
func (v Value) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// MarshalJSON makes encoding/json write vs in the encoding of values.
func (vs Values) MarshalJSON() ([]byte, error) { return vs.AppendJSON(nil), nil }

// UnmarshalJSON reads the encoding of values.
func (v *Value) UnmarshalJSON(data []byte) error {
	parsed, err := ParseValue(data)
	if err == nil {
		*v = parsed
	}
	return err
}

// UnmarshalJSON reads a JSON object, or null as no values.
func (vs *Values) UnmarshalJSON(data []byte) error {
	v, err := ParseValue(data)
	switch {
	case err != nil:
		return err
	case v.kind != MapKind && v.kind != NullKind:
		return Errorf(Corrupt, "want a JSON object")
	}
	*vs = v.Map()
	return nil
}

// appendFloat writes f as Python's repr does, so that both sides print the same text for the same number.
func appendFloat(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// isSpecial reports whether s is zero or more backslashes and one of the words that stand for a float.
func isSpecial(s string) bool {
	for len(s) > 0 && s[0] == '\\' {
		s = s[1:]
	}
	return s == "NaN" || s == "Infinity" || s == "-Infinity"
}

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s as a JSON string, escaping only what JSON demands; bytes that are not UTF-8 become U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			start = i + 1
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
