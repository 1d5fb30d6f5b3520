package remote

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

// A Note is what this machine remembers of a run that it started, beside the experiment: the file .replicate/runs/<id>.json of the project.
type Note struct {
	Target string `json:"target"`
	Engine string `json:"engine,omitempty"` // which one the target led to
	Offset int64  `json:"offset,omitempty"` // what of the log was shown
	Due    bool   `json:"due,omitempty"`    // commits may wait there to be pulled
}

func notesDir(p *project.Project) string { return filepath.Join(p.Private(), "runs") }

func notePath(p *project.Project, id replicate.ID) string {
	return filepath.Join(notesDir(p), string(id)+".json")
}

func writeNote(p *project.Project, id replicate.ID, n Note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(notesDir(p), 0o700); err != nil {
		return err
	}
	return repository.ReplaceFile(notePath(p, id), append(text, '\n'))
}

// note writes down how far this machine has come with a run.
func (r *Run) note(due bool) error {
	n := Notes(r.project)[r.ID]
	n.Target, n.Offset, n.Due = r.facts.Target, r.log.offset(), due
	return writeNote(r.project, r.ID, n)
}

func removeNote(p *project.Project, id replicate.ID) error {
	_ = os.Remove(startPath(p, id)) // of a start that was cut off
	err := os.Remove(notePath(p, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Notes returns what this machine remembers of runs of a project. What cannot be read is left out.
func Notes(p *project.Project) map[replicate.ID]Note {
	files, err := filepath.Glob(filepath.Join(notesDir(p), "*.json"))
	if err != nil {
		return nil
	}
	notes := map[replicate.ID]Note{}
	for _, file := range files {
		name := filepath.Base(file)
		id, err := replicate.ParseID(name[:len(name)-len(".json")])
		if err != nil {
			continue
		}
		var n Note
		if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &n) == nil {
			notes[id] = n
		}
	}
	return notes
}
