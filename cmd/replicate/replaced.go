package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// mostReplaced is how many paths that would be replaced are listed.
	mostReplaced = 20
	// replacedWidth is how long their lines are where no terminal says.
	replacedWidth = 80
)

// mayReplace asks before files that hold something else are replaced.
func (s *session) mayReplace(dir string, paths []string, force bool) error {
	if force {
		return nil
	}
	s.w.say("%s in %s would be replaced:", plural(int64(len(paths)), "file"), dir)
	unsaved, err := s.inNoCommit(dir, paths)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range paths {
		name := printable(p)
		if unsaved[p] {
			name += " (in no commit)"
		}
		names = append(names, name)
	}
	if n := len(paths) - mostReplaced; n > 0 {
		more := fmt.Sprintf("and %d more", n)
		hidden := paths[mostReplaced:]
		if lost := len(slices.DeleteFunc(slices.Clone(hidden), func(p string) bool { return !unsaved[p] })); lost > 0 {
			more += fmt.Sprintf(", %d of them in no commit", lost)
		}
		names = append(names[:mostReplaced], more)
	}
	for _, line := range inLines(names, max(s.w.width, replacedWidth)) {
		s.w.say("  %s", line)
	}
	yes, err := s.w.confirm("continue?")
	if err != nil {
		return err
	}
	if !yes {
		return replicate.Errorf(replicate.Conflict, "nothing was changed").WithHint("-f replaces without asking")
	}
	return nil
}

// inLines joins words by two spaces, in as few lines of a width as can be.
func inLines(words []string, width int) (lines []string) {
	for _, word := range words {
		if last := len(lines) - 1; last >= 0 && len("  ")+len(lines[last])+len("  ")+len(word) <= width {
			lines[last] += "  " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// A content is what a file holds, or where a link leads to.
type content struct {
	hash   replicate.Hash
	target string
}

// inNoCommit returns which of the paths hold something, themselves or below, that no commit has under any name. It looks into commits from the newest
// on until all is found: into all of them if something is in none.
func (s *session) inNoCommit(dir string, paths []string) (map[string]bool, error) {
	progress := s.w.progress("looking for them in commits")
	defer progress.done()
	unsaved := map[string]bool{}
	wanted := map[content][]string{}
	for _, p := range paths {
		if err := s.contents(filepath.Join(dir, filepath.FromSlash(p)), func(c content) { wanted[c] = append(wanted[c], p) }); err != nil {
			unsaved[p] = true // who cannot read it cannot say that it is somewhere
		}
	}
	if err := s.index.Complete(s.ctx); err != nil {
		return nil, err
	}
	commits, err := s.index.CommitNames(s.ctx)
	if err != nil {
		return nil, err
	}
	for i, name := range slices.Backward(commits) {
		if len(wanted) == 0 {
			break
		}
		progress.count(int64(len(commits)-i), int64(len(commits)))
		commit, err := s.index.CommitByOrd(s.ctx, name.Ord)
		if err != nil {
			return nil, err
		}
		row, err := s.index.Row(s.ctx, commit)
		if err != nil {
			return nil, err
		}
		tree, err := s.repo.Tree(s.ctx, row)
		if err != nil {
			if s.ctx.Err() != nil {
				return nil, s.ctx.Err()
			}
			continue // what cannot be read saves nothing
		}
		for i := range tree.Entries {
			delete(wanted, content{tree.Entries[i].Hash, tree.Entries[i].Target})
		}
	}
	for _, paths := range wanted {
		for _, p := range paths {
			unsaved[p] = true
		}
	}
	return unsaved, nil
}

// contents tells of everything at and below a path.
func (s *session) contents(path string, found func(content)) error {
	return filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			found(content{target: target})
			return err
		case !d.Type().IsRegular():
			return fs.ErrInvalid
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		hash, err := repository.HashContent(s.ctx, f)
		found(content{hash: hash})
		return err
	})
}

// fromHere returns a path as somebody in this directory would type it.
func (w *world) fromHere(path string) string {
	if rel, ok := strings.CutPrefix(path, w.dir+string(filepath.Separator)); ok {
		return rel
	}
	return path
}
