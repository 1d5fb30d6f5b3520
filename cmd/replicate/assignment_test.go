package main

import (
	"encoding/json"
	"testing"

	"github.com/replicate/replicate"
)

func TestAssignments(t *testing.T) {
	for _, tt := range []struct{ name, arg, want string }{
		{"float", "x=0.1", `{"x":0.1}`},
		{"float that JSON refuses", "x=-.5e3", `{"x":-500.0}`},
		{"int", "x=12", `{"x":12}`},
		{"large int", "x=123456789012345678901234567890", `{"x":123456789012345678901234567890}`},
		{"true", "x=true", `{"x":true}`},
		{"null", "x=null", `{"x":null}`},
		{"nan", "x=nan", `{"x":"NaN"}`},
		{"minus inf", "x=-inf", `{"x":"-Infinity"}`},
		{"text", "x=adam", `{"x":"adam"}`},
		{"quoted number is text", `x="0.1"`, `{"x":"0.1"}`},
		{"quoted nan is text", `x="NaN"`, `{"x":"\\NaN"}`},
		{"half quoted", `x="a`, `{"x":"\"a"}`},
		{"list stays text", "x=[1,2]", `{"x":"[1,2]"}`},
		{"equals in the value", "x=a=b", `{"x":"a=b"}`},
		{"empty", "x=", `{"x":""}`},
		{"leading zero is text", "x=007", `{"x":"007"}`},
		{"space around a number", "x= 1", `{"x":1}`},
		{"True of Python is text", "x=True", `{"x":"True"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			values, err := assignments([]string{tt.arg})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(values.AppendJSON(nil)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	for _, bad := range []string{"x", "", "=1"} {
		if _, err := assignments([]string{bad}); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%q: got %v, want a usage error", bad, err)
		}
	}
}

func TestNested(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"flat", `{"a":1,"b":2}`, `{"a":1,"b":2}`},
		{"dots", `{"a.b":1,"a.c.d":2,"e":3}`, `{"a":{"b":1,"c":{"d":2}},"e":3}`},
		{"value in the way", `{"a":1,"a.b":2}`, `{"a":1,"a.b":2}`},
		{"map in the way", `{"a.b.c":1,"a":2}`, `{"a.b.c":1,"a":2}`},
		{"empty parts", `{"a..b":1,".":2}`, `{"a..b":1,".":2}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := replicate.ParseValue([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(nested(v.Map()).AppendJSON(nil)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// FuzzAssignment: whatever is typed becomes one value that survives the encoding, under the name before the first "=".
func FuzzAssignment(f *testing.F) {
	for _, seed := range []string{"x=1", "x=", "a.b=nan", `x="\u00e9"`, `x="NaN"`, "x=1e400", "x=\xff", "=", "x=-0.0", "x=[", "x=\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		values, err := assignments([]string{arg})
		if err != nil {
			return
		}
		line := nested(values).AppendJSON(nil)
		if !json.Valid(line) {
			t.Fatalf("%q became %s", arg, line)
		}
		back, err := replicate.ParseValue(line)
		if err != nil || !back.Map().Equal(nested(values)) {
			t.Fatalf("%q: %s came back as %v, %v", arg, line, back, err)
		}
	})
}
