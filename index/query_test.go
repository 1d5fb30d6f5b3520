package index

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

func TestQueriesPrintAsTheyParse(t *testing.T) {
	for _, tt := range []struct{ name, query, want string }{
		{"empty", "  ", ""},
		{"spaces are optional", "a=1 and b<=2", "a = 1 and b <= 2"},
		{"keywords in any case", "a = 1 AND NOT b IN (1,2) Or c IS Not NULL", "(a = 1 and not b in (1, 2)) or c is not null"},
		{"and binds tighter than or", "a = 1 or b = 2 and c = 3", "a = 1 or (b = 2 and c = 3)"},
		{"not binds tightest", "not a = 1 and b = 2", "not a = 1 and b = 2"},
		{"not of a group", "not (a = 1 or b = 2)", "not (a = 1 or b = 2)"},
		{"double equals", "a == 1", "a = 1"},
		{"words are joined", "created > 2  days ago", "created > 2 days ago"},
		{"quotes", `a = "it's" and b = 'say "x"'`, `a = 'it''s' and b = 'say "x"'`},
		{"doubled quotes", `a = "say ""x""" and b = 'it''s'`, `a = 'say "x"' and b = 'it''s'`},
		{"backslashes are plain", `a = 'C:\new'`, `a = 'C:\new'`},
		{"a quoted name", "`my loss` > 1 and `a``b` = 2", "`my loss` > 1 and `a``b` = 2"},
		{"a name that is a keyword", "`and` = 1", "`and` = 1"},
		{"a name that is half a keyword", "in = 1 and is is null and contains contains x", "in = 1 and is is null and contains contains x"},
		{"names with dots, slashes and dashes", "train/loss.min < 1 and a-b.c:d = 2", "train/loss.min < 1 and a-b.c:d = 2"},
		{"match", "a ~ '^x' and b !~ y", "a ~ '^x' and b !~ y"},
		{"not contains", "a not contains b", "a not contains b"},
		{"is nan", "a is nan and b is not nan", "a is nan and b is not nan"},
		{"the form of 2020", "learning_rate = 0.01", "learning_rate = 0.01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFilter(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			if f.String() != tt.want {
				t.Errorf("got  %s\nwant %s", f, tt.want)
			}
			again, err := ParseFilter(f.String())
			if err != nil || again.String() != f.String() {
				t.Errorf("printed %s, which is read as %s, %v", f, again, err)
			}
		})
	}
}

func TestBadQueriesShowThePlace(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{"acc > 0.9 adn loss < 1", `filter: expected "and", "or" or the end at "<" in "acc > 0.9 adn loss < 1"`},
		{"acc", `filter: expected a comparison at the end of "acc"`},
		{"acc >", `filter: expected a value at the end of "acc >"`},
		{"acc > and b = 1", `filter: expected a value at "and" in "acc > and b = 1"`},
		{"> 3", `filter: expected a name at ">" in "> 3"`},
		{"(a = 1", `filter: expected "and", "or" or ")" at the end of "(a = 1"`},
		{"a = 1)", `filter: expected "and", "or" or the end at ")" in "a = 1)"`},
		{"a in 1", `filter: expected "(" at "1" in "a in 1"`},
		{"a in (1 2", `filter: expected "," or ")" at the end of "a in (1 2"`},
		{"a in ()", `filter: expected a value at ")" in "a in ()"`},
		{"a not = 1", `filter: expected "in" or "contains" at "=" in "a not = 1"`},
		{"a is 3", `filter: expected "null" or "nan" at "3" in "a is 3"`},
		{"a = 'x", `filter: quote without an end at "'" in "a = 'x"`},
		{"a ! 3", `filter: expected "!=" or "!~" at "!" in "a ! 3"`},
		{"not", `filter: expected a name at the end of "not"`},
		{"'a' = 3", `filter: expected a name at "'a'" in "'a' = 3"`},
	} {
		_, err := ParseFilter(tt.query)
		if err == nil || err.Error() != tt.want || replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%s\ngot  %v\nwant %s", tt.query, err, tt.want)
		}
		if at, ok := errors.AsType[*SyntaxError](err); ok && at.Text != tt.query {
			t.Errorf("the error of %q is about %q", tt.query, at.Text)
		}
	}
	if _, err := ParseFilter(strings.Repeat("(", 100_000)); err == nil {
		t.Error("nesting without bound")
	}
}

// FuzzFilter: no panic, and what is printed parses to the same.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"", "a = 1", "not (a = 'x''y' or `b c` in (1, 'd', null)) and e is not nan", "a not contains 2 days ago",
		"((((a=1", "a ~ [", "a=\x80", "ſ is nan", "a = 1 and\u00a0b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseFilter(text)
		if err != nil {
			if replicate.KindOf(err) != replicate.Usage {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := ParseFilter(q.String())
		if err != nil || again.String() != q.String() {
			t.Fatalf("%q is printed as %q, which is read as %q, %v", text, q, again, err)
		}
		p := newPlan(names{}, nil, start)
		if err := p.filter(q); err == nil {
			p.ready()
			if err := p.read(nil, alive); err != nil {
				t.Fatal(err)
			}
			p.holds(p)
		}
	})
}

// stored returns a state with values for the comparison tables.
func storedState(t *testing.T) *state {
	s := newState(id("67"))
	s.row = version{at: 1}
	s.light.Created = time.Date(2026, 8, 1, 10, 0, 30, 0, time.FixedZone("CEST", 7200))
	s.light.Ended = s.light.Created.Add(90 * time.Second)
	s.light.Status, s.light.Tags, s.light.Name = replicate.Finished, []string{"paper", "x y"}, "iris"
	s.light.Command = []string{"python", "train.py"}
	s.light.Params = values(t, `{"int":1,"float":1.0,"rate":0.1,"lr":0.1,"text":"0.1","word":"adam","yes":true,"nothing":null,"nan":"NaN","inf":"Infinity",
		"big":9007199254740993,"huge":123456789012345678901234567890,"layers":[1,2,"a"],"map":{},"nested":{"lr":0.5},"literal":"null","lit":"true",
		"Upper":3,"with space":4,"a/b":5,"loss.min":7,"deep":[{"w":[1,2]}],"name":"clash","date":"2026-08-05"}`)
	c := &Commit{Commit: replicate.Commit{ID: id("3b"), Experiment: s.id, Step: 12, Bytes: 1 << 20,
		Metrics: values(t, `{"loss":0.5,"acc":0.9,"only":"NaN","said":"well","a.min":3,"a":1,"lr":0.01}`)}}
	s.addCommit(c, &Options{})
	s.addCommit(&Commit{Commit: replicate.Commit{ID: id("3c"), Experiment: s.id, Seq: 1, Step: 13, Bytes: 1_500_000,
		Metrics: values(t, `{"loss":0.7,"acc":0.8}`)}}, &Options{})
	return s
}

// answer runs a query over one state.
func answer(t *testing.T, s *state, o Options, query string) (bool, error) {
	t.Helper()
	known := names{params: map[string]uint64{}, metrics: map[string]uint64{}}
	blob := appendEntries(nil, s.entries(nil, func(kind nameKind, name string) uint64 {
		in := known.params
		if kind == metricName {
			in = known.metrics
		}
		if in[name] == 0 {
			in[name] = firstNumber + uint64(len(known.params)+len(known.metrics))
		}
		return in[name]
	}))
	f, err := ParseFilter(query)
	if err != nil {
		return false, err
	}
	p := newPlan(known, o.Metrics, time.Date(2026, 8, 2, 12, 0, 0, 0, time.FixedZone("CEST", 7200)))
	if err := p.filter(f); err != nil {
		return false, err
	}
	p.filtered = len(p.subjects)
	p.ready()
	p.rows++
	if err := p.read(blob, s.standing(false)); err != nil {
		return false, err
	}
	_, err = p.judge()
	return p.holds(p), err
}

// TestComparisons has rows for each row of the table of comparisons, and for each kind of name.
func TestComparisons(t *testing.T) {
	s := storedState(t)
	for _, tt := range []struct{ name, yes, no string }{
		{"int and float", "int = 1.0; float = 1; rate < 0.2; rate >= 0.1; int = 1e0; float != 2", "int = 1.5; rate < 0.1; int != 1.0; rate > 0.1"},
		{"whatever the size", "big = 9007199254740993; big > 9007199254740992; huge = 123456789012345678901234567890; huge > 1e20; inf > 1e308; inf = inf",
			"big = 9007199254740992; big = 9007199254740992.0; huge = 123456789012345678901234567891; inf = -inf; huge > inf"},
		{"unquoted by the stored type", "text = 0.1; word = adam; yes = true; yes = TRUE; literal = null; lit = true", "text = 0.10; yes = 1; int = true; word = Adam"},
		{"quoted is text only", "text = '0.1'; word = 'adam'; literal = 'null'", "rate = '0.1'; yes = 'true'; nothing = 'null'; int = '1'"},
		{"missing", "nothing is null; nothing = null; nothing in (null, 1); not nothing = 1",
			"nothing = 1; nothing != 1; nothing !~ x; nothing not in (1); nothing not contains x; nothing is not null; nothing != null; nothing is nan; nothing is not nan"},
		{"not null", "int is not null; int != null; int not in (null)", "int is null; int = null; int in (null)"},
		{"nan", "nan is nan; nan != 1; nan is not null; not nan = 1", "nan = nan; nan = 1; nan < 1; nan >= 1; nan not in (1); nan !~ x; nan not contains x; nan is not nan; nan is null; nan in (nan)"},
		{"different types", "int != x; word != 1; yes != 1; word !~ 5; int not contains 1; layers != 1", "int = x; word < 1; word > 1; yes < 2; yes > 0; layers < 5; int < 'a'; word > 5; int ~ 1; yes = 'x'"},
		{"order of texts", "word < 'b'; word >= 'adam'; text < 'a'", "word < 'adam'; word > 'b'"},
		{"contains", "word contains da; layers contains 1; layers contains a; layers contains 1.0; command contains train", "word contains x; layers contains 3; layers contains '1'; map contains x; int contains 1"},
		{"lists and maps", "layers = '[1,2,\"a\"]'; layers = '[1.0, 2, \"a\"]'; map = '{}'; layers != '[1]'", "layers = '[1,2]'; map = '[]'; layers = 1"},
		{"elements", "layers.0 = 1; layers.2 = a; deep.0.w.1 = 2", "layers.0 = 2; layers.1 < 2"},
		{"match", "word ~ ^ad; word ~ 'a.a'; word !~ x; command ~ '(?i)TRAIN'; tag ~ ^pap", "word ~ x; word ~ ^dam; word !~ da"},
		{"in", "int in (3, 1); word in (sgd, adam); word not in (sgd); int in ('x', 1.0)", "int in (2, 3); word not in (sgd, adam)"},
		{"created", "created = 2026-08-01; created > 2026-08-01; created >= 2026-08-01; created <= 2026-08-01; created < 2026-08-02; created = yesterday; created < today; created > '2026-08-01 10:00'; created = 2026-08-01 10:00; created = 2026-08-01T08:00:30Z; started < 2h ago; created > 2 days ago; created = 2026-08-01 10:00:30; created in (2026-08-01, 2020-01-01); created < now; created is not null",
			"created = 2026-08-02; created < 2026-08-01; created > 2026-08-02; created = today; created = 2026-08-01 10:01; created > 90s ago; created < 3w ago; created != 2026-08-01; created not in (2026-08-01)"},
		{"ended", "ended = 2026-08-01; ended > 2026-08-01 10:01; ended = 2026-08-01 10:02", "ended is null"},
		{"duration", "duration = 90s; duration = 90; duration > 1m; duration < 1h; duration = 1m30s; duration = 1.5 minutes; duration <= 1d", "duration > 90s; duration = 1m"},
		{"size", "size = 1500kB; size = 1.5MB; size > 1MiB; size < 2GiB; size = 1500000; size <= 1.5 MB", "size > 1.5MB; size = 1.5MiB"},
		{"status", "status = finished; status = stopped; status in (stopped, running); status != failed; status = FINISHED; status ~ ^fin", "status = running; status = deleted; status != stopped; status not in (stopped)"},
		{"tag", "tag = paper; tag = 'x y'; tag = x y; tag in (a, paper); tag contains paper; tag != other", "tag = pap; tag != paper; tag is null; tag not in (paper)"},
		{"id", "id = 67; id = '67'; id != 68; id ~ ^67; id in (1, 67)", "id = 68; id = 6z"},
		{"built-in", "name = iris; commits = 2; step = 13; host is null; exit_code is null; git.dirty is null; commits > 1", "step = 12; parent = 1"},
		{"plain metric is last without a goal", "loss = 0.7; loss.first = 0.5; loss.min = 0.5; loss.max = 0.7; loss.last = 0.7", "loss = 0.5; loss.best = 0.5; loss.best is not null"},
		{"a metric of this very name is found first", "a.min = 3; a = 1; a.max = 1", "a.min = 1"},
		{"the suffix of a metric before a parameter", "loss.min = 0.5; param.loss.min = 7", "loss.min = 7"},
		{"metric before parameter", "lr = 0.01; metric.lr = 0.01; param.lr = 0.1", "lr = 0.1; metric.lr = 0.1; param.lr = 0.01"},
		{"built-in before all", "param.name = clash; name = iris", "name = clash"},
		{"nan is the only value", "only is nan; only.last is nan; only.min is null; only != 1; only.max is null", "only = 1; only is null; only < 1; only.min is nan"},
		{"a metric that is text", "said = well; said.min is null; said.last = well", "said.max = well"},
		{"case", "upper = 3; Upper = 3; NESTED.LR = 0.5; Layers.0 = 1; ACC = 0.8; Acc.Max = 0.9; CREATED = 2026-08-01", "upper = 4"},
		{"odd names", "`with space` = 4; a/b = 5; nested.lr = 0.5", "a/b = 4"},
		{"a text that looks like a time", "date = 2026-08-05; date > '2026-08-04'", "date > 2026-08-04"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for want, queries := range map[bool]string{true: tt.yes, false: tt.no} {
				for query := range strings.SplitSeq(queries, "; ") {
					if got, err := answer(t, s, Options{}, query); err != nil || got != want {
						t.Errorf("%s: got %v, %v", query, got, err)
					}
				}
			}
		})
	}
}

func TestMetricsWithAGoalMeanTheirBest(t *testing.T) {
	s := storedState(t)
	o := Options{Metrics: []replicate.Metric{{Name: "acc", Goal: replicate.Maximize}, {Name: "only", Goal: replicate.Minimize}}}
	s.light.Metric = &replicate.Metric{Name: "loss", Goal: replicate.Minimize}
	for _, query := range []string{"loss = 0.5", "loss.best = 0.5", "loss.last = 0.7", "acc = 0.9", "acc.best = 0.9", "acc.last = 0.8", "only is nan", "only.best is null"} {
		if got, err := answer(t, s, o, query); err != nil || !got {
			t.Errorf("%s: got %v, %v", query, got, err)
		}
	}
	o.Metrics[0] = replicate.Metric{Name: "loss", Goal: replicate.Maximize}
	if got, err := answer(t, s, o, "loss = 0.5"); err != nil || !got {
		t.Errorf("the reader's goal was taken before the experiment's own: %v, %v", got, err)
	}
}

func TestQueriesThatMeanNothing(t *testing.T) {
	s := storedState(t)
	for _, tt := range []struct{ query, want, hint string }{
		{"los < 1", `filter: no experiment has "los"`, `did you mean "loss"?`},
		{"acc2 is null", `filter: no experiment has "acc2"`, `did you mean "acc"?`},
		{"zzzzzz is null", `filter: no experiment has "zzzzzz"`, ""},
		{"metric.word = 1", `filter: no experiment has "metric.word"`, ""},
		{"layers.7 = 1", `filter: no experiment has "layers.7"`, `did you mean "layers"?`},
		{"lr < high", `filter: expected a number or a time at "high" in "lr < high"`, "put quotes around a text to compare by its letters"},
		{"yes < true", `filter: expected a number or a time at "true" in "yes < true"`, "put quotes around a text to compare by its letters"},
		{"created > noon", `filter: expected a time at "noon" in "created > noon"`, "such as 2026-08-01, 2026-08-01 10:00, today, 2h ago, 2 days ago"},
		{"created = 5", `filter: expected a time at "5" in "created = 5"`, "such as 2026-08-01, 2026-08-01 10:00, today, 2h ago, 2 days ago"},
		{"duration > long", `filter: expected a duration at "long" in "duration > long"`, "such as 90s, 5m, 2h, 1d"},
		{"size > 5 apples", `filter: expected a size at "5 apples" in "size > 5 apples"`, "such as 500kB, 1.5GB, 2GiB"},
		{"status = runing", `filter: unknown status at "runing" in "status = runing"`, `did you mean "running"?`},
		{"word ~ '['", `filter: bad pattern at "[" in "word ~ '['"`, "patterns are RE2: https://github.com/google/re2/wiki/Syntax"},
	} {
		_, err := answer(t, s, Options{}, tt.query)
		if err == nil || err.Error() != tt.want || replicate.HintOf(err) != tt.hint || replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%s\ngot  %v (%s)\nwant %s (%s)", tt.query, err, replicate.HintOf(err), tt.want, tt.hint)
		}
	}
}

func TestSortIsTotal(t *testing.T) {
	kinds := []replicate.Value{replicate.Int(-1), replicate.Float(0.5), replicate.Int(3), replicate.Text("a"), replicate.Text("b"),
		replicate.Bool(false), replicate.Bool(true), replicate.List([]replicate.Value{replicate.Int(1)}), replicate.Map(nil),
		replicate.Float(math.NaN()), {}}
	var up []found
	for i, v := range kinds {
		up = append(up, found{ord: int64(i), by: v, created: int64(i % 3), id: string(rune('a' + i))})
	}
	ords := func(all []found) (ords []int64) {
		for _, f := range all {
			ords = append(ords, f.ord)
		}
		return ords
	}
	down := slices.Clone(up)
	slices.Reverse(up)
	order{}.sort(up)
	if got := ords(up); !slices.IsSorted(got) {
		t.Errorf("ascending: %v", got)
	}
	order{descending: true}.sort(down)
	if got, want := ords(down), []int64{8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("descending: got %v, want %v", got, want)
	}
	ties := []found{{ord: 1, created: 2, id: "a"}, {ord: 2, created: 1, id: "c"}, {ord: 3, created: 1, id: "b"}}
	order{descending: true}.sort(ties)
	if got := ords(ties); !slices.Equal(got, []int64{3, 2, 1}) {
		t.Errorf("ties: %v", got)
	}
	for text, want := range map[string]order{"": {"created", false}, "loss": {"loss", false}, "loss-desc": {"loss", true}, "loss-asc": {"loss", false},
		"x-desc-asc": {"x-desc", false}, "x-desc-desc": {"x-desc", true}, "-desc": {"-desc", false}} {
		if got := parseOrder(text); got != want {
			t.Errorf("sort %q: got %v", text, got)
		}
	}
}
