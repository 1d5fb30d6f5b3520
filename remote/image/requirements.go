package image

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// requirements are what pip is to install.
type requirements struct {
	lines       []string // of the file it gets
	constraints []string
	count       int // of packages
	files       []file
	local       []Local
	credentials credentials
}

// A file is one that a step needs beside it.
type file struct {
	name string // relative to stepDir
	data []byte
}

// A reqReader reads a file of requirements and those it names.
type reqReader struct {
	*requirements
	root string
	open []string // files that are being read: each is named by the one before
}

// parseRequirements reads the text of a file of requirements. Comments go, files of -r and -c are read in their place, local wheels come along, directories are
// noted, and URLs lose their credentials.
func parseRequirements(root, name string, text []byte) (*requirements, error) {
	r := &reqReader{requirements: &requirements{credentials: credentials{}}, root: root}
	return r.requirements, r.read(name, text, &r.lines)
}

// read appends the lines of a file to those of requirements or of constraints.
func (r *reqReader) read(name string, text []byte, to *[]string) error {
	if slices.Contains(r.open, name) {
		return replicate.Errorf(replicate.Usage, "%s includes itself", name)
	}
	r.open = append(r.open, name)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	for number, line := range logicalLines(string(text)) {
		if err := r.line(filepath.Dir(name), line, to); err != nil {
			return &replicate.Error{Path: fmt.Sprintf("%s:%d", name, number), Kind: replicate.KindOf(err), Err: err}
		}
	}
	return nil
}

var comment = regexp.MustCompile(`(^|\s+)#.*$`)

// logicalLines yields the lines of requirements with their numbers, joined where one ends in a backslash, without comments and blank ones.
func logicalLines(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		joined, from := "", 0
		for i, line := range strings.Split(text+"\n", "\n") {
			line = strings.TrimRight(line, "\r")
			if joined == "" {
				from = i + 1
			}
			if rest, ok := strings.CutSuffix(line, `\`); ok && !comment.MatchString(line) {
				joined += rest + " "
				continue
			}
			line = strings.Join(strings.Fields(comment.ReplaceAllString(joined+line, "")), " ")
			joined = ""
			if line != "" && !yield(from, line) {
				return
			}
		}
	}
}

// option splits "-r x", "-rx", "--requirement x" and "--requirement=x".
func option(line string) (name, value string) {
	if !strings.HasPrefix(line, "-") {
		return "", line
	}
	if !strings.HasPrefix(line, "--") {
		return line[:min(2, len(line))], strings.TrimSpace(line[min(2, len(line)):])
	}
	if i := strings.IndexAny(line, " ="); i >= 0 {
		return line[:i], strings.TrimSpace(line[i+1:])
	}
	return line, ""
}

func (r *reqReader) line(dir, line string, to *[]string) error {
	switch name, value := option(line); name {
	case "-r", "--requirement":
		return r.include(dir, value, to)
	case "-c", "--constraint":
		return r.include(dir, value, &r.constraints)
	case "-e", "--editable":
		return r.requirement(dir, value, true, to)
	case "-f", "--find-links":
		return r.links(dir, value)
	case "-i", "--index-url":
		*to = append(*to, "--index-url "+r.credentials.strip(value))
	case "--extra-index-url":
		*to = append(*to, "--extra-index-url "+r.credentials.strip(value))
	case "":
		return r.requirement(dir, value, false, to)
	default:
		*to = append(*to, r.credentials.strip(line))
	}
	return nil
}

// include reads another file in its place.
func (r *reqReader) include(dir, name string, to *[]string) error {
	if isURL(name) {
		return replicate.Errorf(replicate.Usage, "%s cannot be kept the same from run to run", r.credentials.strip(name)).
			WithHint("download it into the project")
	}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, name)
	}
	text, err := r.readFile(path)
	if err != nil {
		return readError("include", name, err)
	}
	return r.read(path, text, to)
}

// readFile reads a regular file.
func (r *reqReader) readFile(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.root, path)
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = replicate.Errorf(replicate.Usage, "it is no file")
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// requirement adds a package: by name or URL, a local file, or a directory.
func (r *reqReader) requirement(dir, line string, editable bool, to *[]string) error {
	path, extras, rest := localPath(line)
	full := path
	if path != "" && !filepath.IsAbs(path) {
		full = filepath.Join(r.root, dir, path)
	}
	info, err := os.Stat(full)
	switch {
	case path == "":
		if editable {
			line = "-e " + line
		}
		*to = append(*to, r.credentials.strip(line))
	case err != nil:
		return replicate.Errorf(replicate.Usage, "%s is not there", path)
	case info.IsDir():
		return r.directory(full, path, extras, editable)
	default:
		name, err := r.carry(full)
		if err != nil {
			return err
		}
		*to = append(*to, stepDir+"/"+name+extras+rest)
	}
	if to == &r.lines {
		r.count++
	}
	return nil
}

// directory notes a package of the working directory.
func (r *reqReader) directory(full, path, extras string, editable bool) error {
	rel, err := filepath.Rel(r.root, full)
	if err != nil || !filepath.IsLocal(rel) {
		return replicate.Errorf(replicate.Usage, "%s is outside of the project, which alone is sent", path)
	}
	r.local = append(r.local, Local{Path: filepath.ToSlash(rel), Extras: extras, Editable: editable})
	return nil
}

var archives = regexp.MustCompile(`\.(whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)$`)

// direct is the form "name @ file:…".
var direct = regexp.MustCompile(`^[A-Za-z0-9._-]+(\[[^\]]*\])? @ (file:.*)$`)

// localPath splits a requirement that is a path into the path, extras, and what follows: markers and hashes. The path of any other is "".
func localPath(line string) (path, extras, rest string) {
	word := line
	if m := direct.FindStringSubmatch(line); m != nil {
		extras, word = m[1], m[2]
	}
	if i := strings.IndexByte(word, ' '); i >= 0 {
		word, rest = word[:i], word[i:]
	}
	word, isFile := strings.CutPrefix(word, "file:")
	word = strings.TrimPrefix(word, "//")
	if i := strings.IndexByte(word, '['); i >= 0 && strings.HasSuffix(word, "]") {
		word, extras = word[:i], word[i:]
	}
	if !isFile && isURL(word) || word == "" {
		return "", "", ""
	}
	if isFile || strings.HasPrefix(word, ".") || strings.ContainsRune(word, '/') || archives.MatchString(word) {
		return word, extras, rest
	}
	return "", "", ""
}

func isURL(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && !strings.ContainsAny(scheme, " /[")
}

// carry takes a file along, under its name in a directory named after its content, and returns where it is.
func (r *reqReader) carry(path string) (string, error) {
	data, err := r.readFile(path)
	if err != nil {
		return "", readError("requirement", path, err)
	}
	name := "files/" + digest(data)[:12] + "/" + filepath.Base(path)
	r.files = append(r.files, file{name, data})
	return name, nil
}

// linksDir has the files of all local --find-links.
const linksDir = "links"

// links takes the packages of a local directory along.
func (r *reqReader) links(dir, value string) error {
	if isURL(value) && !strings.HasPrefix(value, "file:") {
		r.lines = append(r.lines, "--find-links "+r.credentials.strip(value))
		return nil
	}
	path := strings.TrimPrefix(strings.TrimPrefix(value, "file:"), "//")
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.root, dir, path)
	}
	names, err := os.ReadDir(path)
	if err != nil {
		return readError("--find-links", value, err)
	}
	for _, e := range names {
		if !archives.MatchString(e.Name()) {
			continue
		}
		data, err := r.readFile(filepath.Join(path, e.Name()))
		if err != nil {
			return readError("--find-links", e.Name(), err)
		}
		r.files = append(r.files, file{linksDir + "/" + e.Name(), data})
	}
	if line := "--find-links " + stepDir + "/" + linksDir; !slices.Contains(r.lines, line) {
		r.lines = append(r.lines, line)
	}
	return nil
}

// index puts indexes in front that are not named in the file itself.
func (r *requirements) index(urls []string) {
	var lines []string
	for i, url := range urls {
		name := "--extra-index-url "
		if i == 0 {
			name = "--index-url "
		}
		lines = append(lines, name+r.credentials.strip(url))
	}
	r.lines = append(lines, r.lines...)
}

var variable = regexp.MustCompile(`\$\{([A-Z0-9_]+)\}`)

// variables returns the names that pip replaces by their values.
func (r *requirements) variables() []string {
	var names []string
	for _, line := range slices.Concat(r.lines, r.constraints) {
		for _, m := range variable.FindAllStringSubmatch(line, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// text is the file for pip.
func (r *requirements) text() string {
	lines := r.lines
	if len(r.constraints) > 0 {
		lines = slices.Concat([]string{"-c " + stepDir + "/constraints.txt"}, lines)
	}
	return strings.Join(lines, "\n") + "\n"
}
