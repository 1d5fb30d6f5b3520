package replicate

import (
	"cmp"
	"math"
	"math/big"
	"slices"
	"strings"
)

// Equal reports whether two values are the same to a person: 1 equals 1.0, NaN equals NaN, −0 equals 0; a bool is no
// number and a text no bool.
func (v Value) Equal(w Value) bool {
	switch {
	case v.IsNumber() && w.IsNumber():
		return v.IsNaN() && w.IsNaN() || !v.IsNaN() && !w.IsNaN() && v.compareNumber(w) == 0
	case v.kind != w.kind:
		return false
	case v.kind == ListKind:
		return slices.EqualFunc(v.sub.list, w.sub.list, Value.Equal)
	case v.kind == MapKind:
		return v.sub.members.Equal(w.sub.members)
	}
	return v.num == w.num && v.text == w.text
}

// Equal reports whether two maps have the same names with equal values, in whatever order.
func (vs Values) Equal(ws Values) bool {
	if len(vs) != len(ws) {
		return false
	}
	for i, m := range vs {
		w, ok := ws[i].Value, ws[i].Name == m.Name // mostly they are in the same order
		if !ok {
			w, ok = ws.Get(m.Name)
		}
		if !ok || !m.Value.Equal(w) {
			return false
		}
	}
	return true
}

// Less compares two values that have an order: numbers by exact value whatever their size and type, texts by code point,
// bools with false first. It returns ok false where there is no order: different types, NaN, null, lists, maps.
func (v Value) Less(w Value) (less, ok bool) {
	switch {
	case v.IsNumber() && w.IsNumber():
		return !v.IsNaN() && !w.IsNaN() && v.compareNumber(w) < 0, !v.IsNaN() && !w.IsNaN()
	case v.kind != w.kind:
		return false, false
	case v.kind == TextKind:
		return v.text < w.text, true
	case v.kind == BoolKind:
		return v.num < w.num, true
	}
	return false, false
}

// Compare is the total order in which lists are sorted: numbers, texts, bools, lists and maps by their JSON, then NaN,
// then null. It returns a negative number, 0 or a positive one.
func (v Value) Compare(w Value) int {
	if c := cmp.Compare(v.rank(), w.rank()); c != 0 {
		return c
	}
	switch v.rank() {
	case rankNumber:
		return v.compareNumber(w)
	case rankText:
		return strings.Compare(v.text, w.text)
	case rankBool:
		return cmp.Compare(v.num, w.num)
	case rankCompound:
		return strings.Compare(v.String(), w.String())
	}
	return 0
}

const (
	rankNumber = iota
	rankText
	rankBool
	rankCompound
	rankNaN
	rankNull
)

func (v Value) rank() int {
	switch v.kind {
	case IntKind:
		return rankNumber
	case FloatKind:
		if v.IsNaN() {
			return rankNaN
		}
		return rankNumber
	case TextKind:
		return rankText
	case BoolKind:
		return rankBool
	case NullKind:
		return rankNull
	}
	return rankCompound
}

// exact is the range in which every int is a float.
const exact = 1 << 53

// compareNumber compares two numbers, neither of them NaN, by exact value.
func (v Value) compareNumber(w Value) int {
	a, aInt := v.Int64()
	b, bInt := w.Int64()
	switch {
	case aInt && bInt:
		return cmp.Compare(a, b)
	case (v.kind == FloatKind || aInt && a >= -exact && a <= exact) &&
		(w.kind == FloatKind || bInt && b >= -exact && b <= exact):
		f, g := v.Float(), w.Float()
		switch {
		case f < g:
			return -1
		case f > g:
			return 1
		}
		return 0
	}
	if f := v.Float(); v.kind == FloatKind && math.IsInf(f, 0) {
		return cmp.Compare(f, 0)
	}
	if g := w.Float(); w.kind == FloatKind && math.IsInf(g, 0) {
		return cmp.Compare(0, g)
	}
	return v.rat().Cmp(w.rat())
}

// rat returns a finite number exactly.
func (v Value) rat() *big.Rat {
	if i := v.Big(); i != nil {
		return new(big.Rat).SetInt(i)
	}
	return new(big.Rat).SetFloat64(v.Float())
}
