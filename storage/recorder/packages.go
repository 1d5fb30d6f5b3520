package recorder

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxMetadata bounds what is read of one metadata file. The name and the version stand in its first lines; the RECORD of the
// largest wheels is about 2 MB.
const maxMetadata = 16 << 20

// A distribution is one installed Python package, as its *.dist-info or *.egg-info says.
type distribution struct {
	name, version string
	dir           string // the *.dist-info, *.egg-info or EGG-INFO; a file for the oldest form
	editable      string // folder of the source of an editable install
	commit        string // git commit it was installed from
}

// findPackages lists the distributions on a sys.path as importlib.metadata would: first on the path wins. It reads
// two small files for each, and never runs Python.
func findPackages(ctx context.Context, path []string) []distribution {
	var found []distribution
	seen := map[string]bool{}
	for _, dir := range path {
		for _, info := range metadataIn(dir) {
			if ctx.Err() != nil {
				return found
			}
			d, ok := readDistribution(info)
			if key := canonical(d.name); ok && !seen[key] {
				seen[key] = true
				found = append(found, d)
			}
		}
	}
	return found
}

// metadataIn returns the metadata folders and files in one folder of sys.path. An egg holds its own.
func metadataIn(dir string) []string {
	var found []string
	if filepath.Ext(dir) == ".egg" {
		found = append(found, filepath.Join(dir, "EGG-INFO"))
	}
	entries, _ := os.ReadDir(dir) // what is no folder has no packages: a zip file, a path that does not exist
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".dist-info", ".egg-info":
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}

// readDistribution reads one metadata folder. ok is false if it has no readable name.
func readDistribution(info string) (d distribution, ok bool) {
	d.dir = info
	for _, file := range []string{"METADATA", "PKG-INFO", ""} {
		f, err := os.Open(filepath.Join(info, file))
		if err != nil {
			continue
		}
		d.name, d.version = readHeader(f)
		f.Close()
		if d.name != "" {
			break
		}
	}
	if d.name == "" {
		return d, false
	}
	var origin struct {
		URL  string `json:"url"`
		Info struct {
			Editable bool `json:"editable"`
		} `json:"dir_info"`
		VCS struct {
			Commit string `json:"commit_id"`
		} `json:"vcs_info"`
	}
	if data, err := os.ReadFile(filepath.Join(info, "direct_url.json")); err == nil && json.Unmarshal(data, &origin) == nil {
		d.commit = origin.VCS.Commit
		if dir, isFile := strings.CutPrefix(origin.URL, "file://"); isFile && origin.Info.Editable {
			d.editable = dir
		}
	}
	return d, true
}

// readHeader returns Name and Version of a metadata file, whose header ends at the first empty line.
func readHeader(r io.Reader) (name, version string) {
	lines := bufio.NewScanner(io.LimitReader(r, maxMetadata))
	for lines.Scan() && len(bytes.TrimSpace(lines.Bytes())) > 0 && (name == "" || version == "") {
		field, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.ToLower(field) {
		case "name":
			name = strings.TrimSpace(value)
		case "version":
			version = strings.TrimSpace(value)
		}
	}
	return name, version
}

var separators = regexp.MustCompile(`[-_.]+`)

// canonical returns the form in which names of distributions are compared.
func canonical(name string) string { return separators.ReplaceAllString(strings.ToLower(name), "-") }

// modules returns the top-level modules a distribution brought: what top_level.txt says, else what RECORD lists, else its own name.
func (d *distribution) modules() []string {
	if data, err := readAtMost(filepath.Join(d.dir, "top_level.txt")); err == nil {
		if names := strings.Fields(string(data)); len(names) > 0 {
			return names
		}
	}
	for _, list := range []string{"RECORD", "installed-files.txt"} {
		if data, err := readAtMost(filepath.Join(d.dir, list)); err == nil {
			if names := topLevel(data); len(names) > 0 {
				return names
			}
		}
	}
	return []string{strings.ReplaceAll(canonical(d.name), "-", "_")}
}

// topLevel returns the modules in a RECORD, whose lines are "path,hash,size", or in an installed-files.txt, whose paths are
// relative to the metadata folder.
func topLevel(record []byte) []string {
	var names []string
	for line := range bytes.Lines(record) {
		path, _, _ := strings.Cut(strings.Trim(string(line), "\"\r\n"), ",")
		path = strings.TrimPrefix(path, "../")
		first, rest, nested := strings.Cut(path, "/")
		if !nested {
			if ext := filepath.Ext(first); ext != ".py" && ext != ".so" && ext != ".pyd" {
				continue
			}
			first, _, _ = strings.Cut(first, ".")
		} else if ext := filepath.Ext(rest); ext != ".py" && ext != ".so" && ext != ".pyd" {
			continue
		}
		if isModule(first) && !slices.Contains(names, first) {
			names = append(names, first)
		}
	}
	return names
}

// isModule reports whether a path component can be imported by name.
func isModule(name string) bool {
	return name != "" && name != "__pycache__" && !strings.HasPrefix(name, "__editable__") && !strings.ContainsAny(name, ".- ")
}

func readAtMost(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxMetadata))
}

// A library answers which distributions a set of imported modules came from.
type library struct {
	packages []distribution
	owners   map[string][]string // of a top-level module, by name of the distribution; made when first asked
	reported int                 // how many were imported when that was last told
}

// versions returns name to version, with "@ <commit>" for what was installed from a repository.
func (l *library) versions() map[string]string {
	versions := make(map[string]string, len(l.packages))
	for _, d := range l.packages {
		versions[d.name] = d.version
		if d.commit != "" {
			versions[d.name] = d.version + " @ " + d.commit
		}
	}
	return versions
}

// imported returns the sorted names of the distributions that the modules came from. The first call reads a file per distribution.
func (l *library) imported(modules []string) []string {
	if len(modules) == 0 {
		return nil
	}
	if l.owners == nil {
		l.owners = map[string][]string{}
		for _, d := range l.packages {
			for _, module := range d.modules() {
				l.owners[module] = append(l.owners[module], d.name)
			}
		}
	}
	var names []string
	for _, module := range modules {
		module, _, _ = strings.Cut(module, ".")
		names = append(names, l.owners[module]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
