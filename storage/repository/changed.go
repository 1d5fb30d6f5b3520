package repository

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Changed returns where a directory is not what the tree says, in the order of a tree: the paths at which a commit of it would save another content, kind or mode
// now, or nothing, or something new. Times do not count. Every file is read whose size does not tell.
func (t *Tree) Changed(ctx context.Context, o SurveyOptions) ([]string, error) {
	now, err := Look(ctx, o)
	if err != nil {
		return nil, err
	}
	var changed []string
	old := t.Entries
	for i := range now.Sights {
		s := &now.Sights[i]
		for len(old) > 0 && ComparePaths(old[0].Path, s.Path) < 0 {
			changed, old = append(changed, old[0].Path), old[1:]
		}
		same := false
		if len(old) > 0 && old[0].Path == s.Path {
			if same, err = s.isSame(ctx, o.Root, &old[0]); err != nil {
				return nil, err
			}
			old = old[1:]
		}
		if !same {
			changed = append(changed, s.Path)
		}
	}
	for i := range old {
		changed = append(changed, old[i].Path)
	}
	return changed, nil
}

// isSame reports whether what is at a path is what the tree has there. A file that cannot be read is not.
func (s *Sight) isSame(ctx context.Context, root string, e *Entry) (bool, error) {
	if s.Kind != e.Kind || s.Mode != e.Mode || s.Target != e.Target || s.Kind == File && s.Size != e.Size {
		return false, nil
	}
	if s.Kind != File {
		return true, nil
	}
	f, err := os.OpenFile(filepath.Join(root, s.Path), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	hash, err := HashContent(ctx, f)
	return err == nil && hash == e.Hash, ctx.Err()
}
