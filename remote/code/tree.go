package code

import (
	"context"
	"path"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// Options says what to take.
type Options struct {
	Root   string
	Ignore []string // gitignore patterns of replicate.yaml
	Skip   []string // directories that are left out without a word: a storage or a spool below Root
	Memory string   // file that remembers the hashes of files from one Send to the next, in a directory that exists; "" for none
}

// A Tree is a working directory as it was when it was looked at. No file has been read.
type Tree struct {
	LeftOut []repository.LeftOut
	Files   int64    // regular files and links
	Bytes   int64    // the sizes of its regular files
	Outside []string // links that lead out of the tree, and probably nowhere over there

	options Options
	sights  []repository.Sight
}

// Scan looks at a working directory. Only a root that cannot be read and the end of ctx are errors.
func Scan(ctx context.Context, o Options) (*Tree, error) {
	survey, err := repository.Look(ctx, repository.SurveyOptions{Root: o.Root, Ignore: o.Ignore, Skip: o.Skip})
	if err != nil {
		return nil, err
	}
	t := &Tree{LeftOut: survey.LeftOut, options: o, sights: survey.Sights}
	for i := range t.sights {
		switch s := &t.sights[i]; s.Kind {
		case repository.File:
			t.Files++
			t.Bytes += s.Size
		case repository.Link:
			t.Files++
			if leadsOut(s.Path, s.Target) {
				t.Outside = append(t.Outside, s.Path)
			}
		}
	}
	return t, nil
}

// leadsOut reports whether a link leads out of the tree it is in, as far as its text says.
func leadsOut(link, target string) bool {
	if path.IsAbs(target) {
		return true
	}
	to := path.Join(path.Dir(link), target)
	return to == ".." || strings.HasPrefix(to, "../")
}

// A Report says what became of a tree on its way.
type Report struct {
	Files   int64                // regular files and links that arrived
	Bytes   int64                // the sizes of these files
	Sent    int64                // bytes of content that travelled
	Wire    int64                // bytes that it took
	LeftOut []repository.LeftOut // files that could not be read any more, beyond those of the Tree, by path
	Torn    []string             // files that kept changing while they were read, by path: they may be a mixture of two states
}

// An Owner is whom files belong to over there.
type Owner struct{ UID, GID int }

// problem gives an error of this package its operation.
func problem(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &replicate.Error{Op: op, Path: path, Kind: kindOf(err), Err: err}
}
