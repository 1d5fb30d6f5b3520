package index

import (
	"regexp"
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// filter makes p answer f and what it was asked to answer before.
func (p *plan) filter(f Filter) error {
	if f.root == nil {
		return nil
	}
	c := compiler{plan: p, text: f.text}
	holds := c.expr(f.root)
	if c.err != nil {
		return c.err
	}
	before := p.holds
	p.holds = func(p *plan) bool { return before(p) && holds(p) }
	return nil
}

// compiler turns the tree of a query into predicates of a plan.
type compiler struct {
	*plan
	text string
	err  error // the first
}

func (c *compiler) fail(l literal, problem, hint string) {
	if c.err == nil {
		at := &SyntaxError{Text: c.text, Offset: l.offset, Token: l.text, Problem: problem}
		c.err = &replicate.Error{Op: "filter", Kind: replicate.Usage, Err: at, Hint: hint}
	}
}

func (c *compiler) expr(e expr) predicate {
	switch e := e.(type) {
	case orExpr:
		parts := c.exprs(e)
		return func(p *plan) bool { return slices.ContainsFunc(parts, func(holds predicate) bool { return holds(p) }) }
	case andExpr:
		parts := c.exprs(e)
		return func(p *plan) bool {
			return !slices.ContainsFunc(parts, func(holds predicate) bool { return !holds(p) })
		}
	case notExpr:
		holds := c.expr(e.of)
		return func(p *plan) bool { return !holds(p) }
	}
	return c.test(e.(*test))
}

func (c *compiler) exprs(parts []expr) []predicate {
	predicates := make([]predicate, len(parts))
	for i, part := range parts {
		predicates[i] = c.expr(part)
	}
	return predicates
}

// test compiles one comparison. Missing values and null answer no to everything but "is null" and "= null", NaN to
// everything but "is nan", "is not null" and "!=".
func (c *compiler) test(t *test) predicate {
	subject := c.access(t.name.text)
	if t.op == isNull {
		return func(p *plan) bool { return p.values[subject].IsNull() != t.not }
	}
	if t.op == isNaN {
		return func(p *plan) bool { v := p.values[subject]; return !v.IsNull() && v.IsNaN() != t.not }
	}
	holds := c.comparison(t, c.subjects[subject].class())
	ifNull := !t.not && (t.op == equal || t.op == in) && slices.ContainsFunc(t.values, literal.isNull)
	return func(p *plan) bool {
		switch v := p.values[subject]; {
		case v.IsNull():
			return ifNull
		case v.IsNaN():
			return t.op == equal && t.not
		default:
			return holds(v) != t.not
		}
	}
}

func (a *accessor) class() class {
	if a.builtin == nil {
		return plainClass
	}
	return a.builtin.class
}

// comparison returns the test of t without its negation, for values that are neither null nor NaN.
func (c *compiler) comparison(t *test, class class) func(replicate.Value) bool {
	if t.op == match {
		return c.match(t.values[0])
	}
	if class == timeClass {
		return c.times(t)
	}
	var meanings []meaning
	for _, l := range t.values {
		if class == statusClass && t.op != equal && t.op != in {
			meanings = append(meanings, l.meaning())
			continue
		}
		meanings = append(meanings, c.meanings(l, class)...)
	}
	if class == statusClass && slices.ContainsFunc(meanings, func(m meaning) bool { return m.text == string(deletedStatus) }) {
		c.deleted = c.deleted || !t.not && (t.op == equal || t.op == in)
	}
	switch t.op {
	case contains:
		return func(v replicate.Value) bool { return meanings[0].isIn(v) }
	case equal, in:
		equals := (*meaning).equals
		switch class {
		case idClass:
			equals = (*meaning).isPrefixOf
		case tagsClass:
			equals = (*meaning).isIn
		}
		return func(v replicate.Value) bool {
			return slices.ContainsFunc(meanings, func(m meaning) bool { return equals(&m, v) })
		}
	}
	if l := t.values[0]; !l.quoted && !meanings[0].scalar.IsNumber() {
		if _, ok := parseTime(l.text, c.now); !ok {
			c.fail(l, "expected a number or a time", "put quotes around a text to compare by its letters")
		}
	}
	return func(v replicate.Value) bool {
		order, ok := meanings[0].order(v)
		return ok && t.op.accepts(order)
	}
}

// accepts reports whether an order of the stored value against the literal is what op asks for.
func (op operator) accepts(order int) bool {
	switch op {
	case less:
		return order < 0
	case lessEqual:
		return order <= 0
	case greater:
		return order > 0
	}
	return order >= 0
}

// isIn reports whether a text has m as a part, or a list as an element.
func (m *meaning) isIn(v replicate.Value) bool {
	if v.Kind() == replicate.TextKind {
		return strings.Contains(v.Text(), m.text)
	}
	return slices.ContainsFunc(v.List(), m.equals)
}

// isPrefixOf reports whether m is the beginning of an id.
func (m *meaning) isPrefixOf(v replicate.Value) bool {
	return m.text != "" && strings.HasPrefix(v.Text(), strings.ToLower(m.text))
}

func (c *compiler) match(l literal) func(replicate.Value) bool {
	pattern, err := regexp.Compile(l.text)
	if err != nil {
		c.fail(l, "bad pattern", "patterns are RE2: https://github.com/google/re2/wiki/Syntax")
		return nil
	}
	return func(v replicate.Value) bool {
		return v.Kind() == replicate.TextKind && pattern.MatchString(v.Text()) ||
			slices.ContainsFunc(v.List(), func(e replicate.Value) bool { return e.Kind() == replicate.TextKind && pattern.MatchString(e.Text()) })
	}
}

// times compares created and ended. A date is its first instant for < and >, and the whole day for =.
func (c *compiler) times(t *test) func(replicate.Value) bool {
	var periods []period
	for _, l := range t.values {
		if l.isNull() {
			continue
		}
		p, ok := parseTime(l.text, c.now)
		if !ok {
			c.fail(l, "expected a time", "such as 2026-08-01, 2026-08-01 10:00, today, 2h ago, 2 days ago")
		}
		periods = append(periods, p)
	}
	within := func(v replicate.Value) bool {
		at, _ := v.Int64()
		return slices.ContainsFunc(periods, func(p period) bool { return at == p.from || at > p.from && at < p.to })
	}
	return func(v replicate.Value) bool {
		at, _ := v.Int64()
		switch t.op {
		case less, lessEqual:
			return at < periods[0].from || t.op == lessEqual && within(v)
		case greater, greaterEqual:
			return at > periods[0].from || t.op == greaterEqual && at == periods[0].from
		case contains:
			return false
		}
		return within(v)
	}
}

// meanings returns what a literal means to a class of values.
func (c *compiler) meanings(l literal, class class) []meaning {
	m := l.meaning()
	switch {
	case m.null:
	case class == durationClass:
		c.units(&m, l, parseDuration, "expected a duration", "such as 90s, 5m, 2h, 1d")
	case class == sizeClass:
		c.units(&m, l, ParseSize, "expected a size", "such as 500kB, 1.5GB, 2GiB")
	case class == statusClass:
		return c.statuses(m, l)
	}
	return []meaning{m}
}

func (c *compiler) units(m *meaning, l literal, parse func(string) (float64, bool), problem, hint string) {
	if m.scalar.IsNumber() {
		return
	}
	number, ok := parse(l.text)
	if !ok {
		c.fail(l, problem, hint)
	}
	m.scalar, m.quoted = replicate.Float(number), false
}

// statuses expands "stopped" and refuses what is no status.
func (c *compiler) statuses(m meaning, l literal) []meaning {
	m.text = strings.ToLower(m.text)
	var known []string
	var stopped []meaning
	for _, s := range replicate.Statuses {
		known = append(known, string(s))
		if s.Final() {
			stopped = append(stopped, meaning{text: string(s)})
		}
	}
	known = append(known, "stopped", string(deletedStatus))
	switch {
	case m.text == "stopped":
		return stopped
	case slices.Contains(known, m.text):
		return []meaning{m}
	}
	hint := "known are " + strings.Join(known, ", ")
	if near := replicate.Nearest(m.text, known); near != "" {
		hint = `did you mean "` + near + `"?`
	}
	c.fail(l, "unknown status", hint)
	return []meaning{m}
}
