// Package project finds what a directory belongs to: its project root, its replicate.yaml, the URL of its storage, and the folders
// that replicate keeps beside it.
//
// It only reads. It knows nothing of what is in a storage, reads no environment, and takes the places that differ between users
// as values.
package project

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/replicate/replicate"
)

// private is the folder beside replicate.yaml that holds everything of ours; snapshots leave it out.
const private = ".replicate"

// Options are the places and wishes that Find cannot know.
type Options struct {
	// StorageFlag is the value of -S and StorageEnv that of REPLICATE_STORAGE, "" if not given: a URL, or a path relative to
	// the working directory. The flag wins over the variable, and that over replicate.yaml.
	StorageFlag, StorageEnv string
	// WorkingDir is the directory that those are relative to; "" is that of the process.
	WorkingDir string
	// Home is the user's home directory, "" if there is none.
	Home string
	// UserCache is the user's cache directory, absolute.
	UserCache string
}

// A Project is what a directory belongs to. All paths are absolute.
type Project struct {
	Root       string            // the directory that commits save
	ConfigFile string            // "" if there is none
	Config     *replicate.Config // never nil
	StorageURL string            // for storage.Open
	// NotSaved says why no files of Root may be saved, "" if they may: "it is the home directory".
	NotSaved string

	userCache string
}

// Find returns the project of dir. Its root is the nearest directory from dir upwards with a replicate.yaml or .yml; else the
// nearest with a .replicate/storage, home directory and / left out, as what was once recorded there must not swallow every project
// below; else dir.
func Find(dir string, o Options) (*Project, error) {
	base, err := filepath.Abs(o.WorkingDir)
	if err != nil {
		return nil, &replicate.Error{Op: "find the working directory", Err: err}
	}
	dir = absolute(base, dir)
	if info, err := os.Stat(dir); err != nil {
		return nil, &replicate.Error{Op: "open directory", Path: dir, Kind: replicate.KindOf(err), Err: cause(err)}
	} else if !info.IsDir() {
		return nil, replicate.Errorf(replicate.Usage, "%s is not a directory", dir)
	}
	p := &Project{Root: dir, Config: &replicate.Config{}, userCache: o.UserCache}
	if err := p.findRoot(o.Home); err != nil {
		return nil, err
	}
	if p.ConfigFile != "" {
		if p.Config, err = readConfig(p.ConfigFile, base); err != nil {
			return nil, err
		}
	}
	p.NotSaved = refused(p.Root, o.Home)
	p.StorageURL, err = p.storageURL(o, base)
	return p, err
}

// Private is the folder for what belongs to this working directory alone: the stat cache, what was checked out and replaced.
func (p *Project) Private() string { return filepath.Join(p.Root, private) }

// Spool is the folder for what is not yet in a storage that is not local.
func (p *Project) Spool() string { return filepath.Join(p.Private(), "spool") }

// Cache is the folder for what can be made again from the repository with this id: index and cached data. It is shared by
// all projects of the user.
func (p *Project) Cache(repository string) string {
	return filepath.Join(p.userCache, "replicate", repository)
}

// findRoot sets Root and ConfigFile, starting at Root.
func (p *Project) findRoot(home string) error {
	for dir := range upwards(p.Root) {
		file, err := configFile(dir)
		if err != nil {
			return err
		}
		if file != "" {
			p.Root, p.ConfigFile = dir, file
			return nil
		}
	}
	for dir := range upwards(p.Root) {
		if isDir(filepath.Join(dir, private, "storage")) && refused(dir, home) == "" {
			p.Root = dir
			return nil
		}
	}
	return nil
}

// upwards yields dir and every directory above it.
func upwards(dir string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for yield(dir) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
		}
	}
}

// configFile returns the configuration file of a directory, or "".
func configFile(dir string) (string, error) {
	found := ""
	for _, name := range replicate.ConfigNames {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		if found != "" {
			return "", replicate.Errorf(replicate.Usage, "%s holds both %s and %s", dir, replicate.ConfigNames[0], name).
				WithHint("remove one of them")
		}
		found = path
	}
	return found, nil
}

// readConfig reads a configuration file. Errors name it relative to base if it lies there.
func readConfig(file, base string) (*replicate.Config, error) {
	name := file
	if rel, err := filepath.Rel(base, file); err == nil && filepath.IsLocal(rel) {
		name = rel
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, &replicate.Error{Op: "read", Path: name, Kind: replicate.KindOf(err), Err: cause(err)}
	}
	return replicate.ParseConfig(name, data)
}

// refused says why the files of a directory are never saved as a whole, or "".
func refused(dir, home string) string {
	switch {
	case filepath.Dir(dir) == dir:
		return "it is the root of the file system"
	case home != "" && same(dir, home):
		return "it is the home directory"
	}
	return ""
}

// same reports whether two paths lead to one directory.
func same(a, b string) bool {
	if a == filepath.Clean(b) {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// storageURL returns the URL of the storage: the wish that counts, read from where it is relative to.
func (p *Project) storageURL(o Options, base string) (string, error) {
	switch {
	case o.StorageFlag != "":
		return URL(o.StorageFlag, base)
	case o.StorageEnv != "":
		return URL(o.StorageEnv, base)
	case p.Config.Storage == "":
		return URL(filepath.Join(private, "storage"), p.Root)
	}
	storage := p.Config.Storage
	if rest, ok := strings.CutPrefix(storage, "~/"); ok && o.Home != "" { // no shell has replaced it
		storage = filepath.Join(o.Home, rest)
	}
	u, err := URL(storage, p.Root)
	if err != nil {
		return "", &replicate.Error{Path: p.ConfigFile, Err: err}
	}
	return u, nil
}

// almostURL is a scheme that is known elsewhere, with a slash or two forgotten.
var almostURL = regexp.MustCompile(`^(file|gs|s3|mem):/?[^/]`)

// URL returns what people write for a storage as a URL: paths become file:// URLs, relative ones starting at base.
func URL(storage, base string) (string, error) {
	switch {
	case strings.Contains(storage, "://"):
		return storage, nil
	case almostURL.MatchString(storage):
		scheme, rest, _ := strings.Cut(storage, ":")
		return "", replicate.Errorf(replicate.Usage, "storage %q is neither a URL nor a path", storage).
			WithHint("write %s://%s, or ./%s for a folder", scheme, strings.TrimLeft(rest, "/"), storage)
	}
	return (&url.URL{Scheme: "file", Path: absolute(base, storage)}).String(), nil
}

func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// cause strips the path of an error of package os.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
