package replicate

import (
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
)

func TestGettersOfOtherKinds(t *testing.T) {
	big1 := value(t, "123456789012345678901234567890")
	all := map[string]Value{
		"null": {}, "bool": Bool(true), "int": Int(1), "big": big1, "float": Float(1), "text": Text("x"),
		"list": List([]Value{Int(1)}), "map": Map(Values{{"a", Int(1)}}),
	}
	for name, v := range all {
		_, isInt64 := v.Int64()
		for what, ok := range map[string]bool{
			"IsNull":   v.IsNull() == (name == "null"),
			"IsNumber": v.IsNumber() == (name == "int" || name == "big" || name == "float"),
			"IsNaN":    !v.IsNaN(),
			"Bool":     v.Bool() == (name == "bool"),
			"Int64":    isInt64 == (name == "int"),
			"Big":      (v.Big() != nil) == (name == "int" || name == "big"),
			"Float":    math.IsNaN(v.Float()) != v.IsNumber(),
			"Text":     (v.Text() != "") == (name == "text"),
			"List":     (v.List() != nil) == (name == "list"),
			"Map":      (v.Map() != nil) == (name == "map"),
		} {
			if !ok {
				t.Errorf("%s of %s", what, name)
			}
		}
	}
	if got := big1.Float(); got != 1.2345678901234568e29 {
		t.Errorf("float = %v", got)
	}
	if got := value(t, "-1"+zeros(400)).Float(); !math.IsInf(got, -1) {
		t.Errorf("float = %v", got)
	}
	if got := big1.Big().String(); got != "123456789012345678901234567890" {
		t.Errorf("big = %v", got)
	}
}

func TestBigInt(t *testing.T) {
	ten := big.NewInt(10)
	largest := new(big.Int).Exp(ten, big.NewInt(MaxDigits), nil) // one digit too many
	for _, sign := range []int64{1, -1} {
		i := new(big.Int).Mul(largest, big.NewInt(sign))
		if v := BigInt(i); v.Kind() != TextKind || v.Text() != i.String() {
			t.Errorf("%d digits became %v", MaxDigits+1, v.Kind())
		}
		i.Sub(i, big.NewInt(sign))
		if v := BigInt(i); v.Kind() != IntKind || v.Big().Cmp(i) != 0 {
			t.Errorf("%d digits became %v", MaxDigits, v.Kind())
		}
	}
	for _, i := range []int64{0, -1, math.MaxInt64, math.MinInt64} {
		if got, ok := BigInt(big.NewInt(i)).Int64(); got != i || !ok {
			t.Errorf("%d became %d, %v", i, got, ok)
		}
	}
}

func TestString(t *testing.T) {
	for in, want := range map[string]string{
		`null`: "null", `true`: "true", `1`: "1", `1.0`: "1.0", `-0.0`: "-0.0", `"NaN"`: "nan", `"Infinity"`: "inf", `"-Infinity"`: "-inf",
		`"a\"b\n"`: "a\"b\n", `"\\NaN"`: "NaN", `["NaN","a",1.0]`: `["NaN","a",1.0]`, `{"a":{}}`: `{"a":{}}`,
	} {
		if got := value(t, in).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestValuesSet(t *testing.T) {
	var vs Values
	vs = vs.Set("b", Int(1)).Set("a", Int(2)).Set("b", Int(3))
	if got := string(vs.AppendJSON(nil)); got != `{"b":3,"a":2}` {
		t.Errorf("got %s", got)
	}
	if got := string(vs.Sorted().AppendJSON(nil)); got != `{"a":2,"b":3}` || vs[0].Name != "b" {
		t.Errorf("sorted %s", got)
	}
	if got := vs.Names(); !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("names %q", got)
	}
	if _, ok := vs.Get("c"); ok {
		t.Error("found c")
	}
}

func TestFlat(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", `{}`, `{}`},
		{"flat already", `{"a":1,"b":[{"c":1}]}`, `{"a":1,"b":[{"c":1}]}`},
		{"nested", `{"a":{"b":{"c":1},"d":2},"e":3}`, `{"a.b.c":1,"a.d":2,"e":3}`},
		{"empty map", `{"a":{"b":{}},"c":{}}`, `{"a.b":{},"c":{}}`},
		{"literal name wins, later", `{"a":{"b":1},"a.b":2}`, `{"a.b":2}`},
		{"literal name wins, before", `{"a.b":2,"a":{"b":1}}`, `{"a.b":2}`},
		{"the less nested wins", `{"a":{"b":{"c":1}},"a.b":{"c":2},"x":0}`, `{"a.b.c":2,"x":0}`},
		{"at one level the first wins", `{"a.b":{"c":1},"a":{"b.c":2}}`, `{"a.b.c":1}`},
		{"empty names", `{"":{"":1}}`, `{".":1}`},
		{"null", `{"a":{"b":null}}`, `{"a.b":null}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vs := value(t, tt.in).Map()
			if got := string(vs.Flat(".").AppendJSON(nil)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if string(vs.AppendJSON(nil)) != tt.in {
				t.Error("changed what was given")
			}
		})
	}
	if got := string(value(t, `{"train":{"loss":1}}`).Map().Flat("/").AppendJSON(nil)); got != `{"train/loss":1}` {
		t.Errorf("got %s", got)
	}
}

func TestTextIsUTF8(t *testing.T) {
	if got := Text("a\xff\xc3\x28" + strings.Repeat("é", 3)).Text(); got != "a\uFFFD(ééé" {
		t.Errorf("got %q", got)
	}
}
