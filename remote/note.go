package remote

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

// A Note is what this machine remembers of a run that it started, beside the experiment: the file .replicate/runs/<id>.json of the project.
type Note struct {
	Target string `json:"target"`
	Engine string `json:"engine,omitempty"` // which one the target led to
	Offset int64  `json:"offset,omitempty"` // what of the log was shown
	Due    bool   `json:"due,omitempty"`    // commits may wait there to be pulled
	Start  *Begun `json:"start,omitempty"`  // nil when the job has begun, and where nobody can go on with its start
}

// A Begun is a start that Attach can go on with.
type Begun struct {
	Since time.Time `json:"since"` // when somebody last began with it
	Job   Job       `json:"job"`
	Env   []string  `json:"env,omitempty"` // the names of the job's variables: values are kept nowhere
}

// isKept reports whether somebody may yet go on with a start that was cut off. When it is not it has crashed.
func (b *Begun) isKept(now time.Time) bool { return b != nil && now.Sub(b.Since) < startedFor }

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
	return r.changeNote(func(n *Note) { n.Target, n.Offset, n.Due = r.facts.Target, r.log.offset(), due })
}

func (r *Run) changeNote(change func(*Note)) error {
	n := Notes(r.project)[r.ID]
	change(&n)
	return writeNote(r.project, r.ID, n)
}

// noteStart writes down what is needed to go on with a start that is cut off from now on. A job that has a secret among its arguments is not written down: nobody goes on
// with it.
func (r *Run) noteStart(j Job) error {
	if r.facts.Target == "" || recorder.SecretArg(j.Argv) >= 0 {
		return nil
	}
	return r.changeNote(func(n *Note) {
		n.Start = &Begun{Since: r.client.Now(), Job: j, Env: slices.Sorted(maps.Keys(j.Env))}
	})
}

// GiveUp says that nobody goes on with a start that was cut off, if the run is one: who next asks its host ends it.
func GiveUp(p *project.Project, id replicate.ID) error {
	n, ours := Notes(p)[id]
	if !ours || n.Start == nil {
		return nil
	}
	n.Start.Since = time.Time{}
	return writeNote(p, id, n)
}

// CutOff returns the starts that were cut off before their job began, and that Attach goes on with, as far as this machine knows.
func CutOff(p *project.Project, now time.Time) []replicate.ID {
	var cut []replicate.ID
	for id, n := range Notes(p) {
		if n.Start.isKept(now) && !isStarting(p, id) {
			cut = append(cut, id)
		}
	}
	slices.Sort(cut)
	return cut
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
