package index

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind int

const (
	endToken  tokenKind = iota
	wordToken           // loss, and, 0.1
	nameToken           // `a name`
	textToken           // 'a text', "a text"
	signToken           // <=
	badToken            // its text says what is wrong
)

type token struct {
	kind   tokenKind
	text   string
	offset int
}

// is reports whether t is a keyword, in any case.
func (t token) is(keyword string) bool {
	return t.kind == wordToken && strings.EqualFold(t.text, keyword)
}

func (t token) isSign(sign string) bool { return t.kind == signToken && t.text == sign }

// isKeyword reports whether a word is one that must be quoted to be a name or a value.
func isKeyword(word string) bool {
	return strings.EqualFold(word, "and") || strings.EqualFold(word, "or") || strings.EqualFold(word, "not")
}

// notInWord reports whether a character ends a word.
func notInWord(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("(),=!<>~'\"`", r) }

// lexer cuts a query into tokens. offset is behind the last one.
type lexer struct {
	text   string
	offset int
}

func (l *lexer) next() token {
	l.offset += len(l.text[l.offset:]) - len(strings.TrimLeftFunc(l.text[l.offset:], unicode.IsSpace))
	t := token{offset: l.offset}
	rest := l.text[l.offset:]
	if rest == "" {
		return t
	}
	switch c := rest[0]; c {
	case '`':
		return l.quoted(t, nameToken)
	case '\'', '"':
		return l.quoted(t, textToken)
	case '(', ')', ',', '=', '!', '<', '>', '~':
		return l.sign(t, rest)
	}
	end := strings.IndexFunc(rest, notInWord)
	if end < 0 {
		end = len(rest)
	}
	t.kind, t.text = wordToken, rest[:end]
	l.offset += end
	return t
}

func (l *lexer) sign(t token, rest string) token {
	for _, sign := range []string{"==", "!=", "!~", "<=", ">=", "=", "<", ">", "~", "(", ")", ","} {
		if strings.HasPrefix(rest, sign) {
			t.kind, t.text = signToken, sign
			l.offset += len(sign)
			return t
		}
	}
	t.kind, t.text = badToken, `expected "!=" or "!~"`
	l.offset++
	return t
}

// quoted reads up to the closing quote; a doubled one stands for itself.
func (l *lexer) quoted(t token, kind tokenKind) token {
	quote := l.text[l.offset : l.offset+1]
	var text strings.Builder
	for i := l.offset + 1; ; {
		end := strings.Index(l.text[i:], quote)
		if end < 0 {
			_, size := utf8.DecodeRuneInString(quote)
			l.offset += size
			t.kind, t.text = badToken, "quote without an end"
			return t
		}
		text.WriteString(l.text[i : i+end])
		i += end + 1
		if !strings.HasPrefix(l.text[i:], quote) {
			l.offset = i
			t.kind, t.text = kind, text.String()
			return t
		}
		text.WriteString(quote)
		i++
	}
}
