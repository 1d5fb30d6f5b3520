package replicate

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// This file reads the encoding of values that json.go writes.

// maxDepth bounds the nesting that is read. The client cuts at 20.
const maxDepth = 100

// ParseValue reads one value in the encoding of values and nothing behind it. The error names the offset.
func ParseValue(data []byte) (Value, error) {
	p := parser{data: data}
	v, err := p.value(0)
	if err == nil {
		p.space()
		if p.pos < len(data) {
			err = p.errorf("unexpected %q behind the value", data[p.pos])
		}
	}
	if err != nil {
		return Value{}, err
	}
	return v, nil
}

// ParsePrefix reads the value at the beginning of data and returns how long it is.
func ParsePrefix(data []byte) (v Value, n int, err error) {
	p := parser{data: data}
	if v, err = p.value(0); err != nil {
		return Value{}, 0, err
	}
	return v, p.pos, nil
}

// parser reads strict JSON from data.
type parser struct {
	data []byte
	pos  int
}

func (p *parser) errorf(format string, args ...any) error {
	return Errorf(Corrupt, "JSON at byte %d: %s", p.pos, fmt.Sprintf(format, args...))
}

func (p *parser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// next skips space and returns the byte there, 0 at the end.
func (p *parser) next() byte {
	p.space()
	if p.pos == len(p.data) {
		return 0
	}
	return p.data[p.pos]
}

func (p *parser) value(depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, p.errorf("nested more than %d deep", maxDepth)
	}
	switch c := p.next(); {
	case c == '{':
		members, err := p.object(depth)
		return Map(members), err
	case c == '[':
		list, err := p.array(depth)
		return List(list), err
	case c == '"':
		s, err := p.text()
		return unescapeSpecial(s), err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 0 && p.pos == len(p.data):
		return Value{}, p.errorf("unexpected end")
	}
	switch {
	case p.word("null"):
		return Value{}, nil
	case p.word("true"):
		return Bool(true), nil
	case p.word("false"):
		return Bool(false), nil
	}
	return Value{}, p.errorf("unexpected %q", p.data[p.pos])
}

// word reports whether word comes next, and skips it.
func (p *parser) word(word string) bool {
	rest := p.data[p.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		return false
	}
	p.pos += len(word)
	return true
}

func unescapeSpecial(s string) Value {
	switch {
	case !isSpecial(s):
		return Value{kind: TextKind, text: s}
	case s[0] == '\\':
		return Value{kind: TextKind, text: s[1:]}
	case s == "NaN":
		return Float(math.NaN())
	case s == "Infinity":
		return Float(math.Inf(1))
	}
	return Float(math.Inf(-1))
}

func (p *parser) object(depth int) (Values, error) {
	p.pos++ // {
	if p.next() == '}' {
		p.pos++
		return Values{}, nil
	}
	members := make(Values, 0, 4)
	var seen map[string]int // only for large objects; small ones are searched
	for {
		if p.next() != '"' {
			return nil, p.errorf("want a name")
		}
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if p.next() != ':' {
			return nil, p.errorf(`want ":"`)
		}
		p.pos++
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if seen == nil && len(members) >= 32 {
			seen = make(map[string]int, 64)
			for i, m := range members {
				seen[m.Name] = i
			}
		}
		if seen == nil {
			members = members.Set(name, v)
		} else if i, ok := seen[name]; ok {
			members[i].Value = v
		} else {
			seen[name] = len(members)
			members = append(members, Member{name, v})
		}
		switch p.next() {
		case ',':
			p.pos++
		case '}':
			p.pos++
			return members, nil
		default:
			return nil, p.errorf(`want "," or "}"`)
		}
	}
}

func (p *parser) array(depth int) ([]Value, error) {
	p.pos++ // [
	if p.next() == ']' {
		p.pos++
		return []Value{}, nil
	}
	list := make([]Value, 0, 4)
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		switch p.next() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			return list, nil
		default:
			return nil, p.errorf(`want "," or "]"`)
		}
	}
}

// number reads an int or a float by JSON's grammar.
func (p *parser) number() (Value, error) {
	start := p.pos
	if p.data[p.pos] == '-' {
		p.pos++
	}
	first := p.pos
	digits := p.digits()
	if digits == 0 || digits > 1 && p.data[first] == '0' {
		return Value{}, p.errorf("bad number")
	}
	isInt := true
	if p.pos < len(p.data) && p.data[p.pos] == '.' {
		isInt = false
		p.pos++
		if p.digits() == 0 {
			return Value{}, p.errorf("bad number")
		}
	}
	if p.pos < len(p.data) && (p.data[p.pos] == 'e' || p.data[p.pos] == 'E') {
		isInt = false
		p.pos++
		if p.pos < len(p.data) && (p.data[p.pos] == '+' || p.data[p.pos] == '-') {
			p.pos++
		}
		if p.digits() == 0 {
			return Value{}, p.errorf("bad number")
		}
	}
	number := p.data[start:p.pos]
	if !isInt {
		f, _ := strconv.ParseFloat(string(number), 64) // out of range: ±Inf or 0, as Python reads it
		return Float(f), nil
	}
	if i, err := strconv.ParseInt(string(number), 10, 64); err == nil {
		return Int(i), nil
	}
	return bigInt(string(number)), nil
}

func (p *parser) digits() int {
	start := p.pos
	for p.pos < len(p.data) && p.data[p.pos] >= '0' && p.data[p.pos] <= '9' {
		p.pos++
	}
	return p.pos - start
}

// text reads a string. Lone surrogates and bytes that are not UTF-8 become U+FFFD.
func (p *parser) text() (string, error) {
	p.pos++ // "
	start := p.pos
	for p.pos < len(p.data) { // the common case: nothing to change
		c := p.data[p.pos]
		if c == '"' {
			s := string(p.data[start:p.pos])
			p.pos++
			return s, nil
		}
		if c == '\\' || c < 0x20 || c >= utf8.RuneSelf {
			break
		}
		p.pos++
	}
	buf := append([]byte(nil), p.data[start:p.pos]...)
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; {
		case c == '"':
			p.pos++
			return string(buf), nil
		case c == '\\':
			var err error
			if buf, err = p.escape(buf); err != nil {
				return "", err
			}
		case c < 0x20:
			return "", p.errorf("control character in a string")
		case c < utf8.RuneSelf:
			buf = append(buf, c)
			p.pos++
		default:
			r, size := utf8.DecodeRune(p.data[p.pos:])
			buf = utf8.AppendRune(buf, r)
			p.pos += size
		}
	}
	return "", p.errorf("string without an end")
}

// escape reads one escape, or a pair of surrogates, and appends what it stands for.
func (p *parser) escape(buf []byte) ([]byte, error) {
	if p.pos+1 >= len(p.data) {
		return nil, p.errorf("string without an end")
	}
	c := p.data[p.pos+1]
	if c == 'u' {
		r, ok := p.hex4(p.pos)
		if !ok {
			return nil, p.errorf(`bad \u escape`)
		}
		p.pos += 6
		if utf16.IsSurrogate(r) {
			if low, ok := p.hex4(p.pos); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				p.pos += 6
				return utf8.AppendRune(buf, utf16.DecodeRune(r, low)), nil
			}
			r = utf8.RuneError
		}
		return utf8.AppendRune(buf, r), nil
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	for i := range len(from) {
		if from[i] == c {
			p.pos += 2
			return append(buf, to[i]), nil
		}
	}
	return nil, p.errorf("bad escape")
}

// hex4 reads \uXXXX at pos.
func (p *parser) hex4(pos int) (rune, bool) {
	if pos+6 > len(p.data) || p.data[pos] != '\\' || p.data[pos+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(p.data[pos+2:pos+6]), 16, 16)
	return rune(n), err == nil
}
