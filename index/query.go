package index

import (
	"fmt"
	"strings"

	"github.com/replicate/replicate"
)

// A Filter is a parsed query. Its grammar:
//
//	query  = [ or ] .                                   (* empty: everything *)
//	or     = and { "or" and } .
//	and    = not { "and" not } .
//	not    = "not" not | "(" or ")" | test .
//	test   = name op value | name [ "not" ] "in" "(" value { "," value } ")"
//	       | name [ "not" ] "contains" value | name "is" [ "not" ] ( "null" | "nan" ) .
//	op     = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~" .
//	name   = word | "`" { any } "`" .
//	value  = word { word } | "'" { any } "'" | '"' { any } '"' .
//	word   = one or more characters except space ( ) , = ! < > ~ ' " ` .
//
// Keywords are in any case; and, or, not are never unquoted words. Inside quotes the quote is doubled and backslashes are
// plain. The zero Filter holds for everything.
type Filter struct {
	text string
	root expr // nil: everything
}

// ParseFilter parses a query. What it refuses is an Error of kind Usage around a *SyntaxError.
func ParseFilter(text string) (Filter, error) {
	p := &parser{lexer: lexer{text: text}}
	p.advance()
	f := Filter{text: text}
	if p.token.kind == endToken {
		return f, nil
	}
	f.root = p.or()
	if p.err == nil && p.token.kind != endToken {
		p.expected(`"and", "or" or the end`)
	}
	if p.err != nil {
		return Filter{}, &replicate.Error{Op: "filter", Kind: replicate.Usage, Err: p.err}
	}
	return f, nil
}

// String returns the query in one spelling: what parses to the same tree prints the same.
func (f Filter) String() string {
	if f.root == nil {
		return ""
	}
	return f.root.String()
}

// A SyntaxError says what is wrong with a query, and where.
type SyntaxError struct {
	Text    string // the whole query
	Offset  int    // of the first byte that is wrong; len(Text) at the end
	Token   string // what stands there, "" at the end
	Problem string
}

func (e *SyntaxError) Error() string {
	if e.Token == "" {
		return fmt.Sprintf(`%s at the end of "%s"`, e.Problem, e.Text)
	}
	return fmt.Sprintf(`%s at "%s" in "%s"`, e.Problem, e.Token, e.Text)
}

// expr is a node of the tree: orExpr, andExpr, notExpr or *test.
type expr interface{ String() string }

type (
	orExpr  []expr
	andExpr []expr
	notExpr struct{ of expr }
)

func (e orExpr) String() string  { return join(e, " or ") }
func (e andExpr) String() string { return join(e, " and ") }
func (e notExpr) String() string { return "not " + inParentheses(e.of) }

func join(parts []expr, word string) string {
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = inParentheses(part)
	}
	return strings.Join(texts, word)
}

func inParentheses(e expr) string {
	switch e.(type) {
	case orExpr, andExpr:
		return "(" + e.String() + ")"
	}
	return e.String()
}

// operator is what a test asks. The negated ones are their opposites where there is a value at all.
type operator int

const (
	equal operator = iota
	less
	lessEqual
	greater
	greaterEqual
	match
	in
	contains
	isNull
	isNaN
)

// test is one comparison.
type test struct {
	name   name
	op     operator
	not    bool // !=, !~, not in, not contains, is not
	values []literal
}

// name is a name as it was written.
type name struct {
	text   string
	offset int
}

func (t *test) String() string {
	subject := t.name.String()
	switch t.op {
	case in:
		values := make([]string, len(t.values))
		for i, v := range t.values {
			values[i] = v.String()
		}
		return subject + negated(t.not, " not in (", " in (") + strings.Join(values, ", ") + ")"
	case contains:
		return subject + negated(t.not, " not contains ", " contains ") + t.values[0].String()
	case isNull:
		return subject + negated(t.not, " is not null", " is null")
	case isNaN:
		return subject + negated(t.not, " is not nan", " is nan")
	case equal:
		return subject + negated(t.not, " != ", " = ") + t.values[0].String()
	case match:
		return subject + negated(t.not, " !~ ", " ~ ") + t.values[0].String()
	}
	signs := map[operator]string{less: " < ", lessEqual: " <= ", greater: " > ", greaterEqual: " >= "}
	return subject + signs[t.op] + t.values[0].String()
}

func negated(not bool, yes, no string) string {
	if not {
		return yes
	}
	return no
}

func (n name) String() string {
	if n.text == "" || strings.ContainsFunc(n.text, notInWord) || isKeyword(n.text) {
		return "`" + strings.ReplaceAll(n.text, "`", "``") + "`"
	}
	return n.text
}

// maxQueryDepth bounds nesting, so that no query can exhaust the stack.
const maxQueryDepth = 200

// parser is a recursive descent over tokens with one token of look-ahead. After the first error it only unwinds.
type parser struct {
	lexer
	token token
	depth int
	err   error
}

func (p *parser) advance() { p.token = p.next() }

// fail reports a problem at the present token, unless there was one before.
func (p *parser) fail(problem string) {
	if p.err == nil {
		p.err = &SyntaxError{Text: p.text, Offset: p.token.offset, Token: p.text[p.token.offset:p.offset], Problem: problem}
	}
}

// expected reports that something else stands at the present token.
func (p *parser) expected(what string) {
	if p.token.kind == badToken {
		p.fail(p.token.text)
		return
	}
	p.fail("expected " + what)
}

func (p *parser) or() expr {
	parts := []expr{p.and()}
	for p.err == nil && p.token.is("or") {
		p.advance()
		parts = append(parts, p.and())
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return orExpr(parts)
}

func (p *parser) and() expr {
	parts := []expr{p.not()}
	for p.err == nil && p.token.is("and") {
		p.advance()
		parts = append(parts, p.not())
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return andExpr(parts)
}

func (p *parser) not() expr {
	p.depth++
	defer func() { p.depth-- }()
	switch {
	case p.depth > maxQueryDepth:
		p.fail(fmt.Sprintf("nested more than %d deep", maxQueryDepth))
		return nil
	case p.token.is("not"):
		p.advance()
		return notExpr{p.not()}
	case p.token.isSign("("):
		p.advance()
		e := p.or()
		if p.err == nil && !p.token.isSign(")") {
			p.expected(`"and", "or" or ")"`)
		}
		p.advance()
		return e
	}
	return p.test()
}

func (p *parser) test() expr {
	if p.token.kind != nameToken && (p.token.kind != wordToken || isKeyword(p.token.text)) {
		p.expected("a name")
		return nil
	}
	t := &test{name: name{p.token.text, p.token.offset}}
	p.advance()
	if p.token.kind == signToken {
		if op, ok := operators[p.token.text]; ok {
			t.op, t.not = op.op, op.not
			p.advance()
			t.values = []literal{p.value()}
			return t
		}
	}
	if p.token.is("not") {
		t.not = true
		p.advance()
	}
	switch {
	case p.token.is("in"):
		t.op = in
		p.advance()
		t.values = p.list()
	case p.token.is("contains"):
		t.op = contains
		p.advance()
		t.values = []literal{p.value()}
	case !t.not && p.token.is("is"):
		p.advance()
		p.is(t)
	case t.not:
		p.expected(`"in" or "contains"`)
	default:
		p.expected("a comparison")
	}
	return t
}

var operators = map[string]struct {
	op  operator
	not bool
}{
	"=": {equal, false}, "==": {equal, false}, "!=": {equal, true}, "~": {match, false}, "!~": {match, true},
	"<": {less, false}, "<=": {lessEqual, false}, ">": {greater, false}, ">=": {greaterEqual, false},
}

// is reads what stands behind "is".
func (p *parser) is(t *test) {
	if p.token.is("not") {
		t.not = true
		p.advance()
	}
	switch {
	case p.token.is("null"):
		t.op = isNull
	case p.token.is("nan"):
		t.op = isNaN
	default:
		p.expected(`"null" or "nan"`)
	}
	p.advance()
}

// list reads the values of "in".
func (p *parser) list() []literal {
	if !p.token.isSign("(") {
		p.expected(`"("`)
		return nil
	}
	var values []literal
	for {
		p.advance()
		values = append(values, p.value())
		switch {
		case p.err != nil:
			return nil
		case p.token.isSign(","):
		case p.token.isSign(")"):
			p.advance()
			return values
		default:
			p.expected(`"," or ")"`)
			return nil
		}
	}
}

// value reads a quoted text, or words up to the next keyword or sign.
func (p *parser) value() literal {
	l := literal{offset: p.token.offset}
	if p.token.kind == textToken {
		l.text, l.quoted = p.token.text, true
		p.advance()
		return l
	}
	var words []string
	for p.token.kind == wordToken && !isKeyword(p.token.text) {
		words = append(words, p.token.text)
		p.advance()
	}
	if len(words) == 0 {
		p.expected("a value")
	}
	l.text = strings.Join(words, " ")
	return l
}
