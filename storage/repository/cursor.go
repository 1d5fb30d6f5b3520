package repository

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/replicate/replicate"
)

// maxDepth bounds the nesting of values that are skipped. Values themselves end at 100.
const maxDepth = 200

// A cursor reads one JSON document from left to right without building it. encoding/json takes five times as long for a record,
// and a fresh index reads hundreds of thousands of them. Errors name the offset.
type cursor struct {
	data []byte
	pos  int
	room []Mark // of the last list of origins, for the next one
}

func (c *cursor) errorf(format string, args ...any) error {
	return replicate.Errorf(replicate.Corrupt, "byte %d: %s", c.pos, fmt.Sprintf(format, args...))
}

// next skips space and returns the byte there without taking it, 0 at the end.
func (c *cursor) next() byte {
	for c.pos < len(c.data) {
		switch b := c.data[c.pos]; b {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return b
		}
	}
	return 0
}

// take takes one byte that must be there.
func (c *cursor) take(b byte) error {
	if c.next() != b || c.pos >= len(c.data) {
		return c.errorf("want %q", b)
	}
	c.pos++
	return nil
}

// end checks that nothing follows.
func (c *cursor) end() error {
	if c.next(); c.pos < len(c.data) {
		return c.errorf("unexpected %q behind the end", c.data[c.pos])
	}
	return nil
}

// more takes the comma before the next element or the closing bracket, and reports whether an element follows.
func (c *cursor) more(first bool, closing byte) (bool, error) {
	switch b := c.next(); {
	case b == closing && c.pos < len(c.data):
		c.pos++
		return false, nil
	case first:
		return true, nil
	case b == ',':
		c.pos++
		return true, nil
	}
	return false, c.errorf(`want "," or %q`, closing)
}

// object calls member for every member of an object, with the cursor at the value, which member must take. A null is an object without members.
// key is only valid during the call.
func (c *cursor) object(member func(key []byte) error) error {
	if c.null() {
		return nil
	}
	if err := c.take('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := c.more(first, '}')
		if !more || err != nil {
			return err
		}
		key, err := c.key()
		if err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
	}
}

// key takes the name of a member and the colon behind it.
func (c *cursor) key() ([]byte, error) {
	raw, plain, err := c.quoted()
	if err != nil {
		return nil, err
	}
	if !plain {
		s, err := c.unquote(raw)
		if err != nil {
			return nil, err
		}
		raw = []byte(s)
	} else {
		raw = raw[1 : len(raw)-1]
	}
	return raw, c.take(':')
}

// array calls element for every element of an array, with the cursor at it. A null is an array without elements.
func (c *cursor) array(element func(i int) error) error {
	if c.null() {
		return nil
	}
	if err := c.take('['); err != nil {
		return err
	}
	for i := 0; ; i++ {
		more, err := c.more(i == 0, ']')
		if !more || err != nil {
			return err
		}
		if err := element(i); err != nil {
			return err
		}
	}
}

// null takes a null if there is one.
func (c *cursor) null() bool { return c.next() == 'n' && c.word("null") }

func (c *cursor) word(w string) bool {
	if rest := c.data[c.pos:]; len(rest) >= len(w) && string(rest[:len(w)]) == w {
		c.pos += len(w)
		return true
	}
	return false
}

// quoted takes a string and returns it with its quotes; plain says that nothing between them is escaped or beyond ASCII.
func (c *cursor) quoted() (raw []byte, plain bool, err error) {
	if c.next() != '"' {
		return nil, false, c.errorf("want a string")
	}
	start, i := c.pos, c.pos+1
	for i < len(c.data) && !special[c.data[i]] {
		i++
	}
	if i < len(c.data) && c.data[i] == '"' {
		c.pos = i + 1
		return c.data[start:c.pos], true, nil
	}
	for ; i < len(c.data); i++ {
		switch b := c.data[i]; {
		case b == '"':
			c.pos = i + 1
			return c.data[start:c.pos], false, nil
		case b == '\\':
			i++
		case b < 0x20:
			c.pos = i
			return nil, false, c.errorf("control character in a string")
		}
	}
	return nil, false, c.errorf("string without an end")
}

// special marks the bytes of a string that need a closer look.
var special = func() (t [256]bool) {
	for i := range t {
		t[i] = i < 0x20 || i == '"' || i == '\\' || i >= utf8.RuneSelf
	}
	return t
}()

func (c *cursor) unquote(raw []byte) (string, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", c.errorf("string: %v", err)
	}
	return s, nil
}

// text takes a string. A null is "".
func (c *cursor) text() (string, error) {
	if c.null() {
		return "", nil
	}
	raw, plain, err := c.quoted()
	if err != nil {
		return "", err
	}
	if plain {
		return string(raw[1 : len(raw)-1]), nil
	}
	return c.unquote(raw)
}

// bytes takes a string of plain ASCII and returns what is between its quotes, without copying. A null is nil.
func (c *cursor) bytes() ([]byte, error) {
	if c.null() {
		return nil, nil
	}
	raw, plain, err := c.quoted()
	if err != nil {
		return nil, err
	}
	if !plain {
		return nil, c.errorf("string with escapes")
	}
	return raw[1 : len(raw)-1], nil
}

// int takes an integer of 64 bits.
func (c *cursor) int() (int64, error) {
	c.next()
	start, neg := c.pos, false
	if c.pos < len(c.data) && c.data[c.pos] == '-' {
		neg = true
		c.pos++
	}
	digits := c.pos
	var n uint64
	for ; c.pos < len(c.data) && c.pos-digits < 19; c.pos++ {
		d := c.data[c.pos] - '0'
		if d > 9 {
			break
		}
		n = n*10 + uint64(d)
	}
	bad := c.pos == digits || c.data[digits] == '0' && c.pos-digits > 1
	if c.pos < len(c.data) {
		switch b := c.data[c.pos]; {
		case b >= '0' && b <= '9', b == '.', b == 'e', b == 'E':
			bad = true
		}
	}
	if bad || n > 1<<63 || n == 1<<63 && !neg {
		c.pos = start
		return 0, c.errorf("want an integer of 64 bits")
	}
	if neg {
		return -int64(n), nil
	}
	return int64(n), nil
}

// count takes an integer from 0 to most.
func (c *cursor) count(most int64) (int64, error) {
	c.next()
	start := c.pos
	n, err := c.int()
	if err == nil && (n < 0 || n > most) {
		c.pos = start
		return 0, c.errorf("%d is not from 0 to %d", n, most)
	}
	return n, err
}

func (c *cursor) bool() (bool, error) {
	switch c.next() {
	case 't':
		if c.word("true") {
			return true, nil
		}
	case 'f':
		if c.word("false") {
			return false, nil
		}
	case 'n':
		if c.word("null") {
			return false, nil
		}
	}
	return false, c.errorf("want true or false")
}

// hash takes 64 hex digits. A null or "" is the zero Hash.
func (c *cursor) hash() (h replicate.Hash, err error) {
	b, err := c.bytes()
	if err != nil || len(b) == 0 {
		return h, err
	}
	if !decodeHex(h[:], b) {
		return h, c.errorf("want a hash of %d hex digits", 2*len(h))
	}
	return h, nil
}

// decodeHex reads lower-case hex digits that must fill dst.
func decodeHex(dst, src []byte) bool {
	if len(src) != 2*len(dst) {
		return false
	}
	bad := byte(0)
	for i := range dst {
		a, b := hexValue[src[2*i]], hexValue[src[2*i+1]]
		bad |= a | b
		dst[i] = a<<4 | b&15
	}
	return bad < 16
}

// hexValue is the value of each hex digit, 0xff for every other byte.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, d := range []byte("0123456789abcdef") {
		t[d] = byte(i)
	}
	return t
}()

// id takes a whole ID. A null or "" is none.
func (c *cursor) id() (replicate.ID, error) {
	b, err := c.bytes()
	if err != nil || len(b) == 0 {
		return "", err
	}
	id, err := replicate.ParseID(string(b))
	if err != nil {
		return "", c.errorf("want an id of 32 hex digits")
	}
	return id, nil
}

// time takes a time in RFC 3339, in UTC. A null or "" is the zero time.
func (c *cursor) time() (time.Time, error) {
	b, err := c.bytes()
	if err != nil || len(b) == 0 {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, string(b))
	if err != nil {
		return time.Time{}, c.errorf("want a time as 2026-01-02T15:04:05.999Z")
	}
	return t.UTC(), nil
}

// value takes one value in the encoding of values.
func (c *cursor) value() (replicate.Value, error) {
	c.next()
	v, n, err := replicate.ParsePrefix(c.data[c.pos:])
	if err != nil {
		return replicate.Value{}, fmt.Errorf("value from byte %d: %w", c.pos, err)
	}
	c.pos += n
	return v, nil
}

// values takes an object of values. A null is none.
func (c *cursor) values() (replicate.Values, error) {
	c.next()
	start := c.pos
	v, err := c.value()
	if err == nil && !v.IsNull() && v.Kind() != replicate.MapKind {
		c.pos = start
		return nil, c.errorf("want an object")
	}
	return v.Map(), err
}

// raw takes any value and returns its bytes, which are valid JSON.
func (c *cursor) raw() ([]byte, error) {
	c.next()
	start := c.pos
	if err := c.skip(0); err != nil {
		return nil, err
	}
	return c.data[start:c.pos], nil
}

func (c *cursor) skip(depth int) error {
	if depth > maxDepth {
		return c.errorf("nested more than %d deep", maxDepth)
	}
	switch b := c.next(); {
	case b == '{':
		return c.object(func([]byte) error { return c.skip(depth + 1) })
	case b == '[':
		return c.array(func(int) error { return c.skip(depth + 1) })
	case b == '"':
		raw, plain, err := c.quoted()
		if err == nil && !plain && bytes.IndexByte(raw, '\\') >= 0 && !json.Valid(raw) {
			return c.errorf("bad escape in a string")
		}
		return err
	case b == '-' || b >= '0' && b <= '9':
		return c.number()
	case b == 't' && c.word("true"), b == 'f' && c.word("false"), b == 'n' && c.word("null"):
		return nil
	}
	return c.errorf("want a value")
}

// number skips a number by JSON's grammar.
func (c *cursor) number() error {
	start := c.pos
	c.one('-')
	ok := c.one('0') || c.digits()
	if c.one('.') {
		ok = c.digits() && ok
	}
	if c.one('e') || c.one('E') {
		if !c.one('+') {
			c.one('-')
		}
		ok = c.digits() && ok
	}
	if !ok {
		c.pos = start
		return c.errorf("want a number")
	}
	return nil
}

// one takes the byte b if it is the next.
func (c *cursor) one(b byte) bool {
	if c.pos < len(c.data) && c.data[c.pos] == b {
		c.pos++
		return true
	}
	return false
}

// digits takes all digits and reports whether there is one.
func (c *cursor) digits() bool {
	start := c.pos
	for c.pos < len(c.data) && c.data[c.pos]-'0' <= 9 {
		c.pos++
	}
	return c.pos > start
}
