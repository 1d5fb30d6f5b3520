package replicate

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// A ValueKind is the type of a Value.
type ValueKind uint8

// The kinds of values. An int has any size, a float is an IEEE double.
const (
	NullKind ValueKind = iota
	BoolKind
	IntKind
	FloatKind
	TextKind
	ListKind
	MapKind
)

// A Value is the value of a parameter or a metric. It survives every trip unchanged: NaN, ±Inf, −0, integers of any size,
// null, texts, lists and maps. The zero Value is null. Values are immutable; do not change what List and Map return.
type Value struct {
	kind ValueKind
	num  uint64 // bool, int that fits 64 bits, bits of a float
	text string // text; the digits of an int that does not fit
	sub  *compound
}

type compound struct {
	list    []Value
	members Values
}

// A Member is one named value of a map.
type Member struct {
	Name  string
	Value Value
}

// Values is a map of names to values, in the order given. A name occurs once.
type Values []Member

// Bool returns a bool value.
func Bool(b bool) Value {
	v := Value{kind: BoolKind}
	if b {
		v.num = 1
	}
	return v
}

// Int returns an integer value.
func Int(i int64) Value { return Value{kind: IntKind, num: uint64(i)} }

// BigInt returns an integer value, or the digits as a text if they are more than MaxDigits.
func BigInt(i *big.Int) Value {
	if i.IsInt64() {
		return Int(i.Int64())
	}
	return bigInt(i.String())
}

// bigInt returns the value of the digits of an int that does not fit 64 bits.
func bigInt(digits string) Value {
	if len(strings.TrimPrefix(digits, "-")) > MaxDigits {
		return Text(digits)
	}
	return Value{kind: IntKind, text: digits}
}

// Float returns a floating-point value; NaN, infinities and −0 included.
func Float(f float64) Value { return Value{kind: FloatKind, num: math.Float64bits(f)} }

// Text returns a text value. Each run of bytes that are not UTF-8 becomes one U+FFFD.
func Text(s string) Value { return Value{kind: TextKind, text: strings.ToValidUTF8(s, "\uFFFD")} }

// List returns a list value that owns list.
func List(list []Value) Value { return Value{kind: ListKind, sub: &compound{list: list}} }

// Map returns a map value that owns members.
func Map(members Values) Value { return Value{kind: MapKind, sub: &compound{members: members}} }

// Kind returns the type of v.
func (v Value) Kind() ValueKind { return v.kind }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == NullKind }

// IsNumber reports whether v is an int or a float, NaN included. A bool is none.
func (v Value) IsNumber() bool { return v.kind == IntKind || v.kind == FloatKind }

// IsNaN reports whether v is the float NaN.
func (v Value) IsNaN() bool { return v.kind == FloatKind && math.IsNaN(math.Float64frombits(v.num)) }

// Bool returns the value of a bool, false for every other kind.
func (v Value) Bool() bool { return v.kind == BoolKind && v.num == 1 }

// Int64 returns an int that fits 64 bits, and whether v is one.
func (v Value) Int64() (int64, bool) { return int64(v.num), v.kind == IntKind && v.text == "" }

// Big returns an int of any size, or nil if v is no int.
func (v Value) Big() *big.Int {
	if v.kind != IntKind {
		return nil
	}
	if v.text == "" {
		return big.NewInt(int64(v.num))
	}
	i, _ := new(big.Int).SetString(v.text, 10)
	return i
}

// Float returns a number as the nearest float, NaN if v is no number. For drawing and printing, not for comparing.
func (v Value) Float() float64 {
	switch {
	case v.kind == FloatKind:
		return math.Float64frombits(v.num)
	case v.kind == IntKind && v.text == "":
		return float64(int64(v.num))
	case v.kind == IntKind:
		f, _ := strconv.ParseFloat(v.text, 64) // out of range: ±Inf, as wanted
		return f
	}
	return math.NaN()
}

// Text returns the text of a text value, "" for every other kind.
func (v Value) Text() string {
	if v.kind != TextKind {
		return ""
	}
	return v.text
}

// List returns the elements of a list, nil for every other kind.
func (v Value) List() []Value {
	if v.kind != ListKind {
		return nil
	}
	return v.sub.list
}

// Map returns the members of a map, nil for every other kind.
func (v Value) Map() Values {
	if v.kind != MapKind {
		return nil
	}
	return v.sub.members
}

// String returns v as tables and CSV show it: texts as they are, nan, inf, -inf, null, lists and maps as JSON.
func (v Value) String() string {
	switch v.kind {
	case TextKind:
		return v.text
	case FloatKind:
		switch f := v.Float(); {
		case math.IsNaN(f):
			return "nan"
		case math.IsInf(f, 1):
			return "inf"
		case math.IsInf(f, -1):
			return "-inf"
		}
	}
	return string(v.AppendJSON(nil))
}

// Get returns the value of a name, and whether there is one.
func (vs Values) Get(name string) (Value, bool) {
	for i := range vs {
		if vs[i].Name == name {
			return vs[i].Value, true
		}
	}
	return Value{}, false
}

// Set returns vs with name set to value, in its place if it was there, else at the end.
func (vs Values) Set(name string, value Value) Values {
	for i := range vs {
		if vs[i].Name == name {
			vs[i].Value = value
			return vs
		}
	}
	return append(vs, Member{name, value})
}

// Names returns the names in order.
func (vs Values) Names() []string {
	names := make([]string, len(vs))
	for i := range vs {
		names[i] = vs[i].Name
	}
	return names
}

// Sorted returns a copy in the order of the names.
func (vs Values) Sorted() Values {
	sorted := slices.Clone(vs)
	slices.SortFunc(sorted, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return sorted
}

// Flat returns vs without nested maps: their names are joined with sep. A name that literally contains the joined
// name wins over a nested one. An empty map stays as it is.
func (vs Values) Flat(sep string) Values {
	nested := false
	for i := range vs {
		nested = nested || len(vs[i].Value.Map()) > 0
	}
	if !nested {
		return vs
	}
	flat := make(Values, 0, len(vs))
	at := make(map[string]int, len(vs))
	depth := make(map[string]int, len(vs))
	var add func(prefix string, vs Values, level int)
	add = func(prefix string, vs Values, level int) {
		for _, m := range vs {
			name := prefix + m.Name
			if sub := m.Value.Map(); len(sub) > 0 {
				add(name+sep, sub, level+1)
				continue
			}
			if i, ok := at[name]; !ok {
				at[name], depth[name] = len(flat), level
				flat = append(flat, Member{name, m.Value})
			} else if level < depth[name] {
				flat[i].Value, depth[name] = m.Value, level
			}
		}
	}
	add("", vs, 0)
	return flat
}
