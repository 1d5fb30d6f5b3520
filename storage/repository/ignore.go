package repository

import (
	"fmt"
	"strings"

	"github.com/git-pkgs/gitignore"
)

// This file decides which paths a snapshot leaves out. Three layers are asked in turn, and the first with an opinion decides:
//
//  1. .replicateignore files and the ignore: patterns of replicate.yaml, which count as the last lines of the root's
//     .replicateignore. "!name" keeps a path whatever the other layers say.
//  2. .gitignore files. "!name" takes back only what .gitignore itself left out: it never lets a secret in.
//  3. the built-in rules of secret.go.
//
// Within a layer the patterns of the deepest directory are asked first, and of one file the last pattern that matches
// decides, as in git. A directory that is left out is not looked into, so a pattern need only match a path itself, never
// what lies below it. .git and .replicate are left out before anybody is asked.

const (
	replicateIgnoreName = ".replicateignore"
	gitIgnoreName       = ".gitignore"
	// maxIgnoreFile bounds what is read of one file of patterns, maxPattern one line of it: nobody writes longer ones, and
	// a file of data under such a name must not cost memory.
	maxIgnoreFile = 1 << 20
	maxPattern    = 4096
)

// A ruling is what one layer says of a path.
type ruling struct {
	decided bool
	out     bool
	why     string // of out
}

// patterns are the lines of one file of patterns, for paths relative to its directory.
type patterns struct {
	all   []pattern
	names map[string]last // by name, for patterns without "/" and without wildcards
	exts  map[string]last // by the rest, for "*.rest"
	paths map[string]last // by path, for patterns with "/" and without wildcards
	globs []int           // the others, indexes into all
}

type pattern struct {
	why     string
	keep    bool // begins with "!"
	dirOnly bool // ends in "/"
	byName  bool // has no "/" but at the end: decided by the last name of a path
	glob    *gitignore.Matcher
}

// last holds one more than the index of the last pattern of one text that matches files, and directories; 0 is none.
type last struct{ file, dir int }

func (l last) of(isDir bool) int {
	if isDir {
		return l.dir
	}
	return l.file
}

// parsePatterns reads the text of a file of patterns. name is what reasons call it. It never fails: lines that are no
// pattern match nothing.
func parsePatterns(name string, text []byte) *patterns {
	p := &patterns{names: map[string]last{}, exts: map[string]last{}, paths: map[string]last{}}
	rest, line := strings.TrimPrefix(string(text), "\uFEFF"), 0
	for rest != "" {
		var s string
		s, rest, _ = strings.Cut(rest, "\n")
		line++
		p.add(strings.TrimSuffix(s, "\r"), fmt.Sprintf("%s:%d", name, line))
	}
	return p
}

// add appends one line. Plain names, "*.ext" and plain paths go into maps, so that a long list of patterns costs a file three
// look-ups and not a match of each.
func (p *patterns) add(line, why string) {
	text := trimSpaces(line)
	if text == "" || text[0] == '#' || len(text) > maxPattern {
		return
	}
	x := pattern{why: why}
	text, x.keep = strings.CutPrefix(text, "!")
	text, x.dirOnly = strings.CutSuffix(text, "/")
	if rest, ok := strings.CutPrefix(text, "**/"); ok && !strings.Contains(rest, "/") {
		text = rest
	}
	x.byName = !strings.Contains(text, "/")
	text = strings.TrimPrefix(text, "/")
	if text == "" {
		return
	}
	ext, isExt := strings.CutPrefix(text, "*")
	switch {
	case !strings.ContainsAny(text, `*?[\`) && x.byName:
		p.note(p.names, text, x)
	case !strings.ContainsAny(text, `*?[\`):
		p.note(p.paths, text, x)
	case isExt && x.byName && strings.HasPrefix(ext, ".") && !strings.ContainsAny(ext, `*?[\`):
		p.note(p.exts, ext, x)
	default:
		x.glob = compileGlob(text)
		p.globs = append(p.globs, len(p.all))
		p.all = append(p.all, x)
	}
}

func (p *patterns) note(index map[string]last, key string, x pattern) {
	p.all = append(p.all, x)
	l := index[key]
	l.dir = len(p.all)
	if !x.dirOnly {
		l.file = len(p.all)
	}
	index[key] = l
}

// globEnd stands behind patterns and paths when they are matched, as the matcher takes a pattern for everything below what
// it matches. No name has a NUL.
const globEnd = "/\x00"

func compileGlob(text string) *gitignore.Matcher {
	if strings.HasSuffix(text, "/**") {
		text += "/*" // what lies inside, not the directory itself
	}
	m := &gitignore.Matcher{}
	m.AddPatterns([]byte("/"+text+globEnd), "")
	return m
}

// match decides a path by the last pattern that matches. path is relative to the directory of the patterns, name its last part.
func (p *patterns) match(path, name string, isDir bool) ruling {
	if p == nil || len(p.all) == 0 {
		return ruling{}
	}
	best := max(p.names[name].of(isDir), p.paths[path].of(isDir))
	if len(p.exts) > 0 {
		for i := range len(name) {
			if name[i] == '.' {
				best = max(best, p.exts[name[i:]].of(isDir))
			}
		}
	}
	for i := len(p.globs) - 1; i >= 0 && p.globs[i] >= best; i-- {
		x := &p.all[p.globs[i]]
		subject := path
		if x.byName {
			subject = name
		}
		if (isDir || !x.dirOnly) && x.glob.MatchPath(subject+globEnd, true) {
			best = p.globs[i] + 1
			break
		}
	}
	if best == 0 {
		return ruling{}
	}
	x := &p.all[best-1]
	return ruling{decided: true, out: !x.keep, why: x.why}
}

// trimSpaces removes the spaces at the end that no backslash protects.
func trimSpaces(s string) string {
	for strings.HasSuffix(s, " ") && !strings.HasSuffix(s, `\ `) {
		s = s[:len(s)-1]
	}
	return s
}

// A ruleChain is the rules that hold in one directory: its own and those of the directories above it.
type ruleChain struct {
	above          *ruleChain
	dir            string // relative to the root, with "/" at the end; "" is the root
	replicate, git *patterns
	named          bool // somebody asked for this directory by name: .gitignore has no say in it
}

func (r *ruleChain) addYAML(yaml []string) {
	for _, line := range yaml {
		r.replicate.add(line, "replicate.yaml: "+line)
	}
}

// decide returns why a path is left out, and whether it was kept by name. path is relative to the root. No chain leaves nothing out.
func (r *ruleChain) decide(path, name string, isDir bool) (v ruling) {
	if r == nil {
		return ruling{}
	}
	if name == ".git" || name == ".replicate" {
		return ruling{decided: true, out: true}
	}
	for c := r; c != nil; c = c.above {
		if v := c.replicate.match(path[len(c.dir):], name, isDir); v.decided {
			return v
		}
	}
	for c := r; c != nil && !r.named; c = c.above {
		if v := c.git.match(path[len(c.dir):], name, isDir); v.decided {
			if v.out {
				return v
			}
			break
		}
	}
	return builtIn(name, isDir)
}
