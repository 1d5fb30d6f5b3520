package replicate

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

func value(t *testing.T, text string) Value {
	t.Helper()
	v, err := ParseValue([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestNumbersByExactValue goes up: each line holds equal numbers, and is less than the next.
func TestNumbersByExactValue(t *testing.T) {
	order := [][]string{
		{`"-Infinity"`},
		{"-1" + zeros(400)},
		{`-1.7976931348623157e+308`, "-" + new(big.Float).SetFloat64(math.MaxFloat64).Text('f', 0)},
		{"-9223372036854775809"},
		{"-9223372036854775808", "-9223372036854775808.0"},
		{"-9223372036854775807"},
		{"-9007199254740993"},
		{"-9007199254740992", "-9007199254740992.0"},
		{"-9007199254740991", "-9007199254740991.0"},
		{"-1", "-1.0"},
		{"-5e-324"},
		{"0", "0.0", "-0.0", "-0"},
		{"5e-324"},
		{"0.1"},
		{"0.30000000000000004"},
		{"1", "1.0"},
		{"1.0000000000000002"},
		{"9007199254740991", "9007199254740991.0"},
		{"9007199254740992", "9007199254740992.0"},
		{"9007199254740993"}, // as a float it would be …992
		{"9007199254740994", "9007199254740994.0"},
		{"9223372036854775807"}, // as a float it would be …808
		{"9223372036854775808", "9223372036854775808.0"},
		{"9223372036854775809"},
		{"18446744073709551615"},
		{"18446744073709551616", "18446744073709551616.0"},
		{"1" + zeros(22), "1e22"},
		{"1" + zeros(22)[:21] + "1"},
		{"99999999999999991611392", "1e23"}, // the float 1e23 is less than 10²³
		{"1" + zeros(23)},
		{`1.7976931348623157e+308`, new(big.Float).SetFloat64(math.MaxFloat64).Text('f', 0)},
		{"1" + zeros(309)}, // as a float it would be +Inf
		{"1" + zeros(400)},
		{`"Infinity"`},
	}
	for i, line := range order {
		for j, other := range order {
			for _, a := range line {
				for _, b := range other {
					checkOrder(t, value(t, a), value(t, b), i-j)
				}
			}
		}
	}
}

func zeros(n int) string { return fmt.Sprintf("%0*d", n, 0) }

// checkOrder checks that a and b have the order want, by all three functions.
func checkOrder(t *testing.T, a, b Value, want int) {
	t.Helper()
	less, ok := a.Less(b)
	if c := a.Compare(b); sign(c) != sign(want) || a.Equal(b) != (want == 0) || less != (want < 0) || !ok {
		t.Errorf("%.30s and %.30s: compare %d, equal %v, less %v %v; want %d", a, b, c, a.Equal(b), less, ok, sign(want))
	}
}

func sign(n int) int { return max(-1, min(1, n)) }

func TestOrderOfKinds(t *testing.T) {
	order := []string{
		`"-Infinity"`, `-1`, `0.5`, `2`, `"Infinity"`, `""`, `"-1"`, `"1"`, `"B"`, `"a"`, `"é"`, `"\uffff"`, `"😀"`, `false`, `true`, `[1]`, `[2]`, `[]`,
		`{"a":1}`, `{}`, `"NaN"`, `null`,
	}
	for i, a := range order {
		for j, b := range order {
			if c := value(t, a).Compare(value(t, b)); sign(c) != sign(i-j) {
				t.Errorf("compare %s with %s = %d", a, b, c)
			}
		}
	}
}

func TestLessOnlyWhereThereIsAnOrder(t *testing.T) {
	all := []string{`null`, `true`, `1`, `1.0`, `"NaN"`, `"1"`, `[1]`, `{"a":1}`}
	ordered := map[string]bool{"truetrue": true, "11": true, "11.0": true, "1.01": true, "1.01.0": true, `"1""1"`: true}
	for _, a := range all {
		for _, b := range all {
			if less, ok := value(t, a).Less(value(t, b)); less || ok != ordered[a+b] {
				t.Errorf("%s < %s = %v, %v", a, b, less, ok)
			}
		}
	}
	for _, pair := range [][2]string{{`false`, `true`}, {`"a"`, `"b"`}, {`"B"`, `"a"`}, {`""`, `"a"`}} {
		if less, ok := value(t, pair[0]).Less(value(t, pair[1])); !less || !ok {
			t.Errorf("%s < %s = %v, %v", pair[0], pair[1], less, ok)
		}
	}
}

func TestEqual(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{`"NaN"`, `"NaN"`, true},
		{`"NaN"`, `null`, false},
		{`"NaN"`, `"\\NaN"`, false},
		{`"NaN"`, `0`, false},
		{`null`, `null`, true},
		{`null`, `false`, false},
		{`true`, `1`, false},
		{`true`, `true`, true},
		{`true`, `false`, false},
		{`"1"`, `1`, false},
		{`""`, `null`, false},
		{`123456789012345678901`, `123456789012345678901`, true},
		{`123456789012345678901`, `"123456789012345678901"`, false},
		{`[1,[2]]`, `[1.0,[2.0]]`, true},
		{`[1,2]`, `[2,1]`, false},
		{`[1]`, `[1,1]`, false},
		{`[]`, `{}`, false},
		{`{"a":1,"b":2}`, `{"b":2.0,"a":1}`, true},
		{`{"a":1}`, `{"b":1}`, false},
		{`{"a":1}`, `{"a":1,"b":2}`, false},
		{`{"a":{"b":"NaN"}}`, `{"a":{"b":"NaN"}}`, true},
	} {
		a, b := value(t, tt.a), value(t, tt.b)
		if a.Equal(b) != tt.want || b.Equal(a) != tt.want {
			t.Errorf("%s equals %s: %v, %v; want %v", tt.a, tt.b, a.Equal(b), b.Equal(a), tt.want)
		}
	}
	quiet, other := Float(math.Float64frombits(0x7ff8000000000001)), Float(math.Float64frombits(0xfff8000000000002))
	if !quiet.Equal(other) || quiet.Compare(other) != 0 {
		t.Error("NaNs of different bits differ")
	}
}

// TestCompareIsAnOrder sorts random values, which fails to be stable under shuffling if Compare is no total order.
func TestCompareIsAnOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		list := make([]Value, 60)
		for i := range list {
			list[i] = randomValue(r, 3)
		}
		list = append(list, list...)
		slices.SortFunc(list, Value.Compare)
		for i, a := range list {
			for _, b := range list[i:] {
				if a.Compare(b) > 0 || b.Compare(a) < 0 {
					t.Fatalf("%s stands before %s", a, b)
				}
				less, ok := b.Less(a)
				if ok && less || ok && a.Equal(b) != (a.Compare(b) == 0) {
					t.Fatalf("Less or Equal disagree with Compare on %s and %s", a, b)
				}
			}
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	for _, bb := range []struct {
		name string
		v, w Value
	}{
		{"Floats", Float(0.5), Float(0.25)},
		{"IntFloat", Int(1), Float(0.25)},
		{"LargeIntFloat", Int(1<<53 + 1), Float(1 << 53)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bb.v.Compare(bb.w)
			}
		})
	}
}
