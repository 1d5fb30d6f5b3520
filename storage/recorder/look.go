package recorder

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

const (
	// lookGrace is how long the end of an experiment waits for what is still being found out. All of it takes some 50 ms where
	// nothing is wrong, so that only very short runs on slow machines ever wait.
	lookGrace = time.Second
	// gitDeadline is for all of git together: work trees where it takes longer exist, and nobody waits for them.
	gitDeadline = 2 * time.Second
	// lookDeadline ends what has a deadline of its own as well, and reading package lists on file systems that hang.
	lookDeadline = 10 * time.Second
)

// A look finds out what the client did not say, beside the training, and publishes it: once when everything is known, and again when
// more modules were imported.
type look struct {
	session *Session
	git     bool // looks at the state of git
	machine bool // looks at the machine
	cancel  context.CancelFunc
	modules chan []string // the newest list only
	done    chan struct{}

	mu       sync.Mutex                 // guards the rest
	fields   map[string]json.RawMessage // known and not published
	finished bool                       // nothing more is published: the end takes what there is
}

// startLook begins to look around, at git and the machine unless whoever began the experiment did so. python is nil for clients that are no Python.
func startLook(s *Session, python *Python) *look { return startLookAt(s, !s.guest, !s.guest, python) }

func startLookAt(s *Session, git, machine bool, python *Python) *look {
	ctx, cancel := context.WithTimeout(context.Background(), lookDeadline)
	l := &look{
		session: s, git: git, machine: machine, cancel: cancel, modules: make(chan []string, 1), done: make(chan struct{}),
		fields: map[string]json.RawMessage{},
	}
	go func() {
		defer close(l.done)
		l.run(ctx, python)
	}()
	return l
}

func (l *look) run(ctx context.Context, python *Python) {
	var probes sync.WaitGroup
	if l.git {
		probes.Go(func() { l.lookAtGit(ctx) })
	}
	if l.machine {
		probes.Go(func() { l.lookAtMachine(ctx) })
	}
	var known library
	if python != nil {
		known.packages = findPackages(ctx, python.Path)
		l.learnPython(python, &known, nil)
	}
	probes.Wait()
	l.publish()
	for modules := range l.modules {
		if python != nil && l.learnPython(python, &known, modules) {
			l.publish()
		}
	}
}

func (l *look) lookAtGit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gitDeadline)
	defer cancel()
	git, err := readGit(ctx, l.session.place.project.Root)
	if err != nil {
		l.session.o.Tell(Remark{Note: "state of git: " + err.Error()})
	}
	if git != nil {
		l.learn("git", git)
	}
}

func (l *look) lookAtMachine(ctx context.Context) {
	machine := readMachine(os.DirFS("/"))
	if len(machine.GPUs) == 0 {
		machine.GPUs, machine.Driver = askSMI(ctx)
	}
	l.learn("machine", machine)
}

// learnPython notes the interpreter, its packages and those that modules came from. It reports whether there was anything new.
func (l *look) learnPython(python *Python, known *library, modules []string) bool {
	imported := known.imported(modules)
	if modules != nil && len(imported) == known.reported {
		return false // modules are only ever added
	}
	known.reported = len(imported)
	l.learn("python", &replicate.Python{
		Version: python.Version, Executable: python.Executable, Packages: known.versions(), Imported: imported,
	})
	return true
}

func (l *look) learn(field string, value any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fields[field] = raw(value)
}

// publish stores what is known and not stored yet, unless the end does it.
func (l *look) publish() {
	l.mu.Lock()
	fields := l.fields
	if l.finished || len(fields) == 0 {
		l.mu.Unlock()
		return
	}
	l.fields = map[string]json.RawMessage{}
	l.mu.Unlock()
	if err := l.session.writer.Set(context.Background(), fields); err != nil {
		l.session.o.Tell(warningOf(err))
	}
}

// imported hands over the modules that the client has imported so far. It does not wait.
func (l *look) imported(modules []string) {
	if len(modules) == 0 {
		return
	}
	select {
	case <-l.modules: // older, and part of these
	default:
	}
	l.modules <- modules
}

// finish ends the look and adds what it found and did not publish to fields. It waits a moment for what is nearly there.
func (l *look) finish(fields map[string]json.RawMessage) {
	l.mu.Lock()
	l.finished = true
	l.mu.Unlock()
	close(l.modules)
	select {
	case <-l.done:
	case <-time.After(lookGrace):
	}
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, value := range l.fields {
		fields[name] = value
	}
	l.fields = map[string]json.RawMessage{}
}
