package index

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

// naive answers a query from plain values: the parameters of an experiment and nothing else.
func naive(e expr, params replicate.Values) bool {
	switch e := e.(type) {
	case orExpr:
		return slices.ContainsFunc(e, func(part expr) bool { return naive(part, params) })
	case andExpr:
		return !slices.ContainsFunc(e, func(part expr) bool { return !naive(part, params) })
	case notExpr:
		return !naive(e.of, params)
	}
	t := e.(*test)
	v, _ := params.Get(t.name.text)
	if t.op == isNull {
		return v.IsNull() != t.not
	}
	nulls := slices.ContainsFunc(t.values, func(l literal) bool { return l.text == "null" && !l.quoted })
	switch {
	case v.IsNull():
		return (t.op == equal || t.op == in) && !t.not && nulls
	case v.IsNaN():
		return t.op == isNaN && !t.not || t.op == equal && t.not
	}
	return slices.ContainsFunc(t.values, func(l literal) bool { return naiveHolds(t.op, v, l) }) != t.not
}

func naiveHolds(op operator, v replicate.Value, l literal) bool {
	number, err := strconv.ParseFloat(l.text, 64)
	isNumber := err == nil && !l.quoted
	switch op {
	case contains:
		return v.Kind() == replicate.TextKind && strings.Contains(v.Text(), l.text)
	case match:
		return v.Kind() == replicate.TextKind && regexp.MustCompile(l.text).MatchString(v.Text())
	case isNaN:
		return false
	case equal, in:
		return v.Kind() == replicate.TextKind && v.Text() == l.text || v.IsNumber() && isNumber && v.Float() == number ||
			v.Kind() == replicate.BoolKind && !l.quoted && strconv.FormatBool(v.Bool()) == l.text
	}
	signs := map[operator][3]bool{less: {true, false, false}, lessEqual: {true, true, false}, greater: {false, false, true}, greaterEqual: {false, true, true}}[op]
	switch {
	case v.IsNumber() && isNumber:
		return v.Float() < number && signs[0] || v.Float() == number && signs[1] || v.Float() > number && signs[2]
	case v.Kind() == replicate.TextKind && l.quoted:
		return signs[1+strings.Compare(v.Text(), l.text)]
	}
	return false
}

// randomQuery returns a query over the parameters a, b and c.
func randomQuery(random *rand.Rand, depth int) string {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	switch n := random.IntN(6); {
	case depth > 0 && n == 0:
		return "(" + randomQuery(random, depth-1) + " or " + randomQuery(random, depth-1) + ")"
	case depth > 0 && n == 1:
		return randomQuery(random, depth-1) + " and " + randomQuery(random, depth-1)
	case depth > 0 && n == 2:
		return "not (" + randomQuery(random, depth-1) + ")"
	}
	name, value := pick("a", "b", "c"), func() string { return pick("1", "1.0", "2", "0.5", "'1'", "x", "'x'", "true", "null", "'b'") }
	switch random.IntN(5) {
	case 0:
		return name + pick(" in (", " not in (") + value() + ", " + value() + ")"
	case 1:
		return name + " is " + pick("null", "not null", "nan", "not nan")
	case 2:
		return name + pick(" contains ", " not contains ", " ~ ", " !~ ") + pick("x", "'1'", "b")
	case 3:
		return name + pick(" < ", " <= ", " > ", " >= ") + pick("1", "1.5", "'b'", "'1'")
	}
	return name + pick(" = ", " != ") + value()
}

func TestEvaluatorAgreesWithTheModel(t *testing.T) {
	w := newWorld(t)
	random := rand.New(rand.NewPCG(3, 4))
	all := map[string]replicate.Values{}
	for i := range 60 {
		var params replicate.Values
		for _, name := range []string{"a", "b", "c"} {
			v := values(t, `{"0":1,"1":1.0,"2":2,"3":0.5,"4":"1","5":"x","6":true,"7":null,"8":"NaN","9":"b","10":false,"11":"bx"}`)
			if n := random.IntN(len(v) + 2); n < len(v) {
				params = append(params, replicate.Member{Name: name, Value: v[n].Value})
			}
		}
		e := id(fmt.Sprintf("%02d", i))
		all[string(e[:2])] = params
		w.must(w.repository.Append(t.Context(), encode(t, experimentRecord(replicate.Experiment{ID: e, Params: params}))...))
	}
	w.sync()
	for range 2000 {
		query := randomQuery(random, 3)
		f, err := ParseFilter(query)
		w.must(err)
		want := []string{}
		for e, params := range all {
			if naive(f.root, params) {
				want = append(want, e)
			}
		}
		slices.Sort(want)
		if got := w.found(Query{Filters: []string{query}, Sort: "id"}); !slices.Equal(got, want) {
			t.Fatalf("%s\ngot  %v\nwant %v", query, got, want)
		}
	}
}
