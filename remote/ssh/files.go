package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// maxIncludes bounds files that include files, as in OpenSSH.
const maxIncludes = 16

// plural keywords gather all their values; of all others the first one counts.
var plural = []string{"identityfile", "certificatefile"}

// A reader reads ssh_config where there is no ssh program to do it. It knows Host, Include, and of Match: all, host, originalhost, user,
// and localuser. A Match that depends on anything else is an error with file and line: to guess would be to connect somewhere else.
type reader struct {
	address Address
	o       Options
	found   settings
}

// readFiles is askSSH without an ssh program.
func readFiles(_ context.Context, a Address, o Options, identity string) (settings, error) {
	r := &reader{address: a, o: o, found: settings{}}
	if identity != "" {
		r.set("identityfile", identity)
	}
	files := []string{o.absolute("~/.ssh/config"), "/etc/ssh/ssh_config"}
	if o.Config != "" {
		files = []string{o.Config}
	}
	for _, file := range files {
		err := r.read(file, true, maxIncludes)
		if err != nil && (o.Config != "" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	r.defaults()
	if name := r.found.get("hostname"); name != "" {
		r.found["hostname"] = []string{strings.ReplaceAll(strings.ReplaceAll(name, "%h", a.Host), "%%", "%")}
	}
	return r.found, nil
}

// defaults are those of OpenSSH, where this package has no other.
func (r *reader) defaults() {
	for key, values := range map[string][]string{
		"identityfile":         {"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ecdsa_sk", "~/.ssh/id_ed25519", "~/.ssh/id_ed25519_sk"},
		"userknownhostsfile":   {"~/.ssh/known_hosts", "~/.ssh/known_hosts2"},
		"globalknownhostsfile": {"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
	} {
		if len(r.found[key]) == 0 {
			r.found[key] = values
		}
	}
}

func (r *reader) set(key, value string) {
	if len(r.found[key]) == 0 || slices.Contains(plural, key) && !slices.Contains(r.found[key], value) {
		r.found[key] = append(r.found[key], value)
	}
}

// read reads one file. What stands before its first Host or Match applies if active.
func (r *reader) read(file string, active bool, left int) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.readLines(f, file, active, left)
}

func (r *reader) readLines(text io.Reader, file string, active bool, left int) error {
	inherited := active
	lines := bufio.NewScanner(text)
	for n := 1; lines.Scan(); n++ {
		key, value := keyword(lines.Text())
		switch key {
		case "":
		case "host":
			active = inherited && matchList(fields(value), r.address.Host)
		case "match":
			matches, err := r.match(fields(value))
			if err != nil {
				return replicate.Errorf(replicate.Usage, "%s:%d: %w", file, n, err).WithHint("install the ssh program, which can tell")
			}
			active = inherited && matches
		case "include":
			if err := r.include(file, fields(value), active, left); err != nil {
				return fmt.Errorf("%s:%d: %w", file, n, err)
			}
		default:
			if active {
				r.set(key, unquote(value))
			}
		}
	}
	return lines.Err()
}

// include reads the files that patterns name, relative to where OpenSSH looks for them.
func (r *reader) include(from string, patterns []string, active bool, left int) error {
	if left == 0 {
		return fmt.Errorf("too many files include each other")
	}
	folder := r.o.absolute("~/.ssh")
	if strings.HasPrefix(from, "/etc/ssh/") {
		folder = "/etc/ssh"
	}
	for _, pattern := range patterns {
		if pattern = r.o.absolute(pattern); !filepath.IsAbs(pattern) {
			pattern = filepath.Join(folder, pattern)
		}
		names, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("include %s: %w", pattern, err)
		}
		for _, name := range names {
			if err := r.read(name, active, left-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// match says whether all criteria of a Match hold. One that does not hold makes up for those nobody here can tell.
func (r *reader) match(words []string) (bool, error) {
	unknown := ""
	for i := 0; i < len(words); i++ {
		name, negated := strings.CutPrefix(strings.ToLower(words[i]), "!")
		subject, known := r.subject(name)
		if name == "all" {
			continue
		}
		if name != "canonical" && name != "final" {
			i++
		}
		if !known {
			unknown = name
			continue
		}
		if i >= len(words) {
			return false, fmt.Errorf("%q of Match names nothing", name)
		}
		if matchList(strings.Split(words[i], ","), subject) == negated {
			return false, nil
		}
	}
	if unknown != "" {
		return false, fmt.Errorf("there is no ssh program, and without it Match %s cannot be told", unknown)
	}
	return true, nil
}

// subject is what a criterion of Match is compared with.
func (r *reader) subject(criterion string) (value string, known bool) {
	switch criterion {
	case "host":
		name := strings.ReplaceAll(r.found.get("hostname"), "%h", r.address.Host)
		return strings.ToLower(orElse(name, r.address.Host)), true
	case "originalhost":
		return r.address.Host, true
	case "user":
		return orElse(r.address.User, orElse(r.found.get("user"), localUser())), true
	case "localuser":
		return localUser(), true
	}
	return "", false
}

// keyword takes a line apart: Key value, Key=value, comments and blank lines.
func keyword(line string) (key, value string) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return "", ""
	}
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		return strings.ToLower(line), ""
	}
	value = strings.TrimSpace(line[end:])
	if after, ok := strings.CutPrefix(value, "="); ok {
		value = strings.TrimSpace(after)
	}
	return strings.ToLower(line[:end]), value
}

// fields splits at blanks outside quotes.
func fields(value string) (list []string) {
	quoted := false
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t')
	}) {
		if strings.HasPrefix(part, "#") {
			break
		}
		list = append(list, unquote(part))
	}
	return list
}

func unquote(value string) string {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		return value[1 : len(value)-1]
	}
	return value
}
