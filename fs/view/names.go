package view

import (
	"strings"
	"unicode/utf8"

	"encoding/hex"
	"hash/fnv"
)

const (
	// maxName is the longest name that comes from data; a file system allows 255 bytes, and names get suffixes.
	maxName = 200
	// keptName is how much of a longer one is kept, before "~" and 8 digits of its hash.
	keptName = 180
)

// Escape makes a name of any text: %XX for "/", "%", control characters, bytes that are not UTF-8, a leading "." or "-" and a
// trailing space. A lone "%" is the empty text. A name of more than 200 bytes is cut, with a hash for what is lost.
func Escape(text string) string {
	if text == "" {
		return "%"
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		c := text[i]
		switch {
		case r == utf8.RuneError && size == 1, c < 0x20, c == 0x7f, c == '/', c == '%',
			i == 0 && (c == '.' || c == '-'), i == len(text)-1 && c == ' ':
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[c>>4])
			b.WriteByte("0123456789ABCDEF"[c&15])
		default:
			b.WriteString(text[i : i+size])
		}
		i += size
	}
	if b.Len() <= maxName {
		return b.String()
	}
	h := fnv.New64a()
	h.Write([]byte(text))
	return cut(b.String(), keptName) + "~" + hex.EncodeToString(h.Sum(nil)[:4])
}

// cut returns at most n bytes of an escaped name, with neither a character nor an escape cut in two.
func cut(name string, n int) string {
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	for i := max(0, n-2); i < n; i++ {
		if name[i] == '%' {
			return name[:i]
		}
	}
	return name[:n]
}

// Unescape is the inverse of Escape, but for names that were cut. ok is false for a name that Escape does not make.
func Unescape(name string) (text string, ok bool) {
	if name == "%" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false
		}
		c, err := hex.DecodeString(name[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), Escape(b.String()) == name
}

// noise are names that tools ask for wherever they are. They are never there, and nobody needs to ask again.
var noise = map[string]bool{
	".git": true, ".hidden": true, ".xdg-volume-info": true, "autorun.inf": true, ".DS_Store": true, ".svn": true, ".hg": true,
}

// Noise reports whether a name is one that tools ask for everywhere and that no directory of ours has. Directories of commits
// may have it.
func Noise(name string) bool {
	return noise[name] || strings.HasPrefix(name, ".Trash") || strings.HasPrefix(name, "._")
}
