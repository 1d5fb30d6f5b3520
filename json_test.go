package replicate

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestAppendJSON(t *testing.T) {
	huge, _ := new(big.Int).SetString("-123456789012345678901234567890", 10)
	for _, tt := range []struct {
		value Value
		want  string
	}{
		{Value{}, `null`},
		{Bool(true), `true`},
		{Bool(false), `false`},
		{Int(0), `0`},
		{Int(-7), `-7`},
		{Int(math.MaxInt64), `9223372036854775807`},
		{Int(math.MinInt64), `-9223372036854775808`},
		{BigInt(huge), `-123456789012345678901234567890`},
		{BigInt(big.NewInt(5)), `5`},
		{Float(0), `0.0`},
		{Float(math.Copysign(0, -1)), `-0.0`},
		{Float(1), `1.0`},
		{Float(0.1), `0.1`},
		{Float(1e15), `1000000000000000.0`},
		{Float(9999999999999998), `9999999999999998.0`},
		{Float(1e16), `1e+16`},
		{Float(1e22), `1e+22`},
		{Float(0.0001), `0.0001`},
		{Float(0.00001), `1e-05`},
		{Float(math.SmallestNonzeroFloat64), `5e-324`},
		{Float(-math.MaxFloat64), `-1.7976931348623157e+308`},
		{Float(math.NaN()), `"NaN"`},
		{Float(math.Inf(1)), `"Infinity"`},
		{Float(math.Inf(-1)), `"-Infinity"`},
		{Text(""), `""`},
		{Text("NaN"), `"\\NaN"`},
		{Text(`\NaN`), `"\\\\NaN"`},
		{Text("-Infinity"), `"\\-Infinity"`},
		{Text("nan"), `"nan"`},
		{Text("+Infinity"), `"+Infinity"`},
		{Text(`\x`), `"\\x"`},
		{Text("<a href='&'>é😀</a>"), `"<a href='&'>é😀</a>"`},
		{Text("\u2028\x7f"), "\"\u2028\x7f\""},
		{Text("\"\\\n\r\t\b\x00\x1f"), `"\"\\\n\r\t\u0008\u0000\u001f"`},
		{Text("a\xff\xfeb"), `"a` + "\uFFFD" + `b"`},
		{List(nil), `[]`},
		{List([]Value{Int(1), Float(1), Text("NaN"), {}}), `[1,1.0,"\\NaN",null]`},
		{Map(nil), `{}`},
		{Map(Values{{"b", Int(1)}, {"NaN", Float(math.NaN())}, {"", Map(Values{{"x", List(nil)}})}}), `{"b":1,"NaN":"NaN","":{"x":[]}}`},
	} {
		got := string(tt.value.AppendJSON(nil))
		if got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
		back, err := ParseValue([]byte(got))
		if err != nil || back.Kind() != tt.value.Kind() || string(back.AppendJSON(nil)) != got {
			t.Errorf("%s came back as %s, %v", got, back.AppendJSON(nil), err)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s is not valid JSON", got)
		}
	}
}

func TestParseValue(t *testing.T) {
	digits := strings.Repeat("9", MaxDigits)
	for _, tt := range []struct{ in, want string }{
		{" \t\r\n1 \n", `1`},
		{`-0`, `0`},
		{`-0.0`, `-0.0`},
		{`1E5`, `100000.0`},
		{`1e400`, `"Infinity"`},
		{`-1e400`, `"-Infinity"`},
		{`1e-400`, `0.0`},
		{`9223372036854775808`, `9223372036854775808`},
		{`-9223372036854775809`, `-9223372036854775809`},
		{digits, digits},
		{"-" + digits, "-" + digits},
		{"1" + digits, `"1` + digits + `"`},
		{"-1" + digits, `"-1` + digits + `"`},
		{`"\u0041\/\b\f\"\\"`, `"A/\u0008\u000c\"\\"`},
		{`"\ud83d\ude00"`, `"😀"`},
		{`"\uD83D\uDE00"`, `"😀"`},
		{`"\ud83d"`, `"` + "\uFFFD" + `"`},
		{`"\ude00\ud83d"`, `"` + "\uFFFD\uFFFD" + `"`},
		{`"\ud83dx\ude00"`, `"` + "\uFFFDx\uFFFD" + `"`},
		{`"\ud83d\ud83d\ude00"`, `"` + "\uFFFD😀" + `"`},
		{`"\ud83d\n"`, `"` + "\uFFFD" + `\n"`},
		{"\"\xed\xa0\xbd\"", `"` + "\uFFFD\uFFFD\uFFFD" + `"`},
		{"\"a\xff\"", `"a` + "\uFFFD" + `"`},
		{`"\\NaN"`, `"\\NaN"`},
		{`"\u004eaN"`, `"NaN"`},
		{` [ 1 , [ ] , { } ] `, `[1,[],{}]`},
		{` { "a" : 1 , "b" : { "c" : [ 2 ] } } `, `{"a":1,"b":{"c":[2]}}`},
		{`{"a":1,"b":2,"a":3}`, `{"a":3,"b":2}`},
	} {
		got, err := ParseValue([]byte(tt.in))
		if err != nil || string(got.AppendJSON(nil)) != tt.want {
			t.Errorf("%.60s: got %.60s, %v; want %.60s", tt.in, got.AppendJSON(nil), err, tt.want)
		}
	}
}

func TestParseValueErrors(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	if _, err := ParseValue([]byte(deep)); err != nil {
		t.Errorf("%d deep: %v", maxDepth, err)
	}
	for _, tt := range []struct{ in, want string }{
		{``, `JSON at byte 0: unexpected end`},
		{`  `, `JSON at byte 2: unexpected end`},
		{`nul`, `JSON at byte 0: unexpected 'n'`},
		{`nulll`, `JSON at byte 4: unexpected 'l' behind the value`},
		{`NaN`, `JSON at byte 0: unexpected 'N'`},
		{`-Infinity`, `JSON at byte 1: bad number`},
		{`True`, `JSON at byte 0: unexpected 'T'`},
		{`1 2`, `JSON at byte 2: unexpected '2' behind the value`},
		{`01`, `JSON at byte 2: bad number`},
		{`-`, `JSON at byte 1: bad number`},
		{`1.`, `JSON at byte 2: bad number`},
		{`1.e5`, `JSON at byte 2: bad number`},
		{`1e`, `JSON at byte 2: bad number`},
		{`1e+`, `JSON at byte 3: bad number`},
		{`.5`, `JSON at byte 0: unexpected '.'`},
		{`+1`, `JSON at byte 0: unexpected '+'`},
		{`0x10`, `JSON at byte 1: unexpected 'x' behind the value`},
		{`1_000`, `JSON at byte 1: unexpected '_' behind the value`},
		{"\x00", `JSON at byte 0: unexpected '\x00'`},
		{`"abc`, `JSON at byte 4: string without an end`},
		{`"abc\`, `JSON at byte 4: string without an end`},
		{"\"a\nb\"", `JSON at byte 2: control character in a string`},
		{`"\x41"`, `JSON at byte 1: bad escape`},
		{`"\u12"`, `JSON at byte 1: bad \u escape`},
		{`"\u+123"`, `JSON at byte 1: bad \u escape`},
		{`"\u12_4"`, `JSON at byte 1: bad \u escape`},
		{`'a'`, `JSON at byte 0: unexpected '\''`},
		{`[1`, `JSON at byte 2: want "," or "]"`},
		{`[1,]`, `JSON at byte 3: unexpected ']'`},
		{`[,1]`, `JSON at byte 1: unexpected ','`},
		{`{"a"}`, `JSON at byte 4: want ":"`},
		{`{"a":}`, `JSON at byte 5: unexpected '}'`},
		{`{"a":1,}`, `JSON at byte 7: want a name`},
		{`{a:1}`, `JSON at byte 1: want a name`},
		{`{"a":1`, `JSON at byte 6: want "," or "}"`},
		{`{"a":1]`, `JSON at byte 6: want "," or "}"`},
		{`// x`, `JSON at byte 0: unexpected '/'`},
		{"[" + deep + "]", `JSON at byte 101: nested more than 100 deep`},
	} {
		v, err := ParseValue([]byte(tt.in))
		if err == nil || err.Error() != tt.want || KindOf(err) != Corrupt {
			t.Errorf("%.40s: %v, %v; want %s", tt.in, v, err, tt.want)
		}
	}
}

// TestLargeObjects passes the size from which names are looked up in a table.
func TestLargeObjects(t *testing.T) {
	var vs Values
	for i := range 100 {
		vs = vs.Set(strings.Repeat("x", i), Int(int64(i)))
	}
	text := string(vs.AppendJSON(nil))
	var got Values
	if err := got.UnmarshalJSON([]byte(text)); err != nil || string(got.AppendJSON(nil)) != text {
		t.Errorf("got %s, %v", got.AppendJSON(nil), err)
	}
	twice := text[:len(text)-1] + `,"":-1,"xx":-2}`
	if err := got.UnmarshalJSON([]byte(twice)); err != nil || len(got) != 100 {
		t.Fatalf("%d names, %v", len(got), err)
	}
	if v, _ := got.Get("xx"); !v.Equal(Int(-2)) || got[0].Name != "" {
		t.Errorf("the last one must win, in the place of the first: %v, %q", v, got[0].Name)
	}
}

func TestEncodingJSON(t *testing.T) {
	type record struct {
		Value  Value  `json:"value"`
		Values Values `json:"values"`
		None   Values `json:"none"`
	}
	in := record{
		Value:  List([]Value{Float(1), Int(1 << 60), Float(math.NaN())}),
		Values: Values{{"z", Text("<&>")}, {"a", Float(math.Inf(-1))}},
	}
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(in); err != nil {
		t.Fatal(err)
	}
	want := `{"value":[1.0,1152921504606846976,"NaN"],"values":{"z":"<&>","a":"-Infinity"},"none":{}}` + "\n"
	if buf.String() != want {
		t.Errorf("got %s", buf.String())
	}
	var out record
	if err := json.Unmarshal(buf.Bytes(), &out); err != nil || !out.Value.Equal(in.Value) || !out.Values.Equal(in.Values) {
		t.Errorf("came back as %+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"values":null}`), &out); err != nil || out.Values != nil {
		t.Errorf("null: %v, %v", out.Values, err)
	}
	for _, bad := range []string{`{"values":[]}`, `{"values":1}`, `{"values":"x"}`} {
		if err := json.Unmarshal([]byte(bad), &out); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
}

// randomValue makes values that are likely to break something.
func randomValue(r *rand.Rand, depth int) Value {
	switch n := r.IntN(12); {
	case n == 0:
		return Value{}
	case n == 1:
		return Bool(r.IntN(2) == 0)
	case n == 2:
		return Int(r.Int64N(200) - 100)
	case n == 3:
		return Int(int64(r.Uint64()) >> r.IntN(64))
	case n == 4:
		i := new(big.Int).Lsh(big.NewInt(int64(r.Uint64())), uint(r.IntN(200)))
		return BigInt(i.Add(i, big.NewInt(r.Int64N(3)-1)))
	case n <= 7:
		return randomFloat(r)
	case n == 8 || depth > 3:
		return Text(randomText(r))
	case n == 9:
		return Text(strings.Repeat(`\`, r.IntN(3)) + []string{"NaN", "Infinity", "-Infinity"}[r.IntN(3)])
	case n == 10:
		list := make([]Value, r.IntN(4))
		for i := range list {
			list[i] = randomValue(r, depth+1)
		}
		return List(list)
	}
	var vs Values
	for range r.IntN(4) {
		vs = vs.Set(randomText(r), randomValue(r, depth+1))
	}
	return Map(vs)
}

func randomFloat(r *rand.Rand) Value {
	switch r.IntN(6) {
	case 0:
		return Float(math.Float64frombits(r.Uint64())) // every exponent, NaN and Inf too
	case 1:
		return Float(float64(math.Float32frombits(r.Uint32())))
	case 2:
		special := []float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), 1 << 53, 1e16, 1e15, 1e-4, 1e-5, 5e-324}
		return Float(special[r.IntN(len(special))])
	case 3:
		return Float(float64(r.Int64N(1000)))
	case 4:
		return Float(math.Nextafter(math.Pow(10, float64(r.IntN(40)-20)), float64(r.IntN(3)-1)))
	}
	return Float(r.NormFloat64())
}

func randomText(r *rand.Rand) string {
	letters := []rune("ab\"\\/<>&\x00\b\n\r\t\x1f\x7fé\u0080\u07ff\u0800\u2028\ufffd\ufffe\uffff😀\U0010ffff")
	text := make([]rune, r.IntN(8))
	for i := range text {
		text[i] = letters[r.IntN(len(letters))]
	}
	return string(text)
}

func TestRandomValuesRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		v := randomValue(r, 0)
		text := v.AppendJSON(nil)
		back, err := ParseValue(text)
		if err != nil || !back.Equal(v) || back.Compare(v) != 0 || !bytes.Equal(back.AppendJSON(nil), text) || !json.Valid(text) {
			t.Fatalf("%s came back as %s, %v", text, back.AppendJSON(nil), err)
		}
	}
}

func FuzzParseValue(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-0.0,1e400,"NaN","\\NaN",null,true],"b":{"c":"\ud83d\ude00\ud800"}}`, `123456789012345678901234567890`, `[[[[]]]]`,
		`"\u0000\\"`, `{"a":1,"a":2}`, "\"\xff\"", `1E+2`, `-`, `{"":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseValue(data)
		if err == nil != json.Valid(data) && (err == nil || !strings.Contains(err.Error(), "deep")) {
			t.Fatalf("%q: %v, and encoding/json says %v", data, err, json.Valid(data))
		}
		if err != nil {
			return
		}
		text := v.AppendJSON(nil)
		back, err := ParseValue(text)
		if err != nil || !back.Equal(v) || !bytes.Equal(back.AppendJSON(nil), text) {
			t.Fatalf("%q: %s came back as %s, %v", data, text, back.AppendJSON(nil), err)
		}
	})
}

func BenchmarkParseValue(b *testing.B) {
	line := []byte(`{"op":"log","step":812,"metrics":{"train/loss":0.31234567890123,"train/acc":0.91,"lr":0.001,"epoch":3}}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseValue(line); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	v, _ := ParseValue([]byte(`{"op":"log","step":812,"metrics":{"train/loss":0.31234567890123,"train/acc":0.91,"lr":0.001,"epoch":3}}`))
	buf := v.AppendJSON(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = v.AppendJSON(buf[:0])
	}
}
