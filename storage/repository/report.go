package repository

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// Waiting says what is in an outbox and not in its storage.
type Waiting struct {
	Records int   `json:"records"` // ready files
	Commits int   `json:"commits"` // among them
	Bytes   int64 `json:"bytes"`   // of packs
	Living  int   `json:"running"` // writers whose processes live: of these there may be more
	Ended   int   `json:"ended"`   // writers that are gone, and whose end is not published
}

// Done reports whether everything that was recorded is in the storage, but for what living writers log.
func (w Waiting) Done() bool { return w.Records == 0 && w.Ended == 0 }

// Waiting looks at the outbox. A spool that publishes before it answers has nothing waiting.
func (s *Spool) Waiting() (w Waiting) {
	if s.outbox == nil {
		return w
	}
	for _, name := range s.writers() { // first, as what a dead writer left goes to ready/ from there: looked at later it could be missed in both
		switch state, _ := s.stateOf(name); {
		case state == dead, state == living && exists(s.path(name), endName): // the uploader holds the lock while it takes over what was left
			w.Ended++
		case state == living:
			w.Living++
		}
	}
	names, _ := s.outbox.ready("") // what cannot be read is not counted
	w.Records = len(names)
	for _, name := range names {
		if beginsCommit(s.outbox.path(readyName, name)) {
			w.Commits++
		}
	}
	packs, _ := os.ReadDir(s.outbox.path(packsName))
	for _, e := range packs {
		if info, err := e.Info(); err == nil {
			w.Bytes += info.Size()
		}
	}
	return w
}

func beginsCommit(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	prefix := []byte(`{"commit":`)
	buf := make([]byte, len(prefix))
	_, err = f.Read(buf)
	return err == nil && bytes.Equal(buf, prefix)
}

// An UploadStatus is what an uploader says of itself, once a second.
type UploadStatus struct {
	PID      int       `json:"pid"`
	Began    time.Time `json:"began"`
	Time     time.Time `json:"time"`
	Sent     int64     `json:"sent"` // bytes of packs, since it began
	Obstacle *Obstacle `json:"obstacle,omitempty"`
	Tried    time.Time `json:"tried,omitzero"`    // when an obstacle was met last
	Warning  string    `json:"warning,omitempty"` // the last one: something that it can do nothing about
}

// An Obstacle is why an uploader does not get on. It tries again for ever.
type Obstacle struct {
	Since time.Time      `json:"since"`
	Kind  replicate.Kind `json:"kind"`
	Text  string         `json:"text"`
	Hint  string         `json:"hint,omitempty"`
}

// Error says what it is.
func (p *Obstacle) Error() string { return p.Text }

// Status returns what the uploader said last, and whether one is at work.
func (s *Spool) Status() (status UploadStatus, running bool) {
	if s.outbox == nil {
		return status, false
	}
	if text, err := os.ReadFile(s.outbox.path(statusName)); err == nil {
		_ = json.Unmarshal(text, &status) // an old one says nothing
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return status, false
	}
	defer lock.Close()
	return status, unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// Idle reports whether there is something to do for an uploader, and none at work.
func (s *Spool) Idle() bool {
	if s.outbox == nil || s.outbox.isEmpty(s) {
		return false
	}
	_, running := s.Status()
	return !running
}

// reportEvery is how often the status is written while nothing but numbers change.
const reportEvery = time.Second

// A report keeps the status of an uploader.
type report struct {
	spool *Spool

	mu     sync.Mutex // guards what follows; held while a small local file is replaced, so that the last is the newest
	status UploadStatus
	errs   map[string]error // by what was tried
	since  time.Time
}

func (r *report) start(s *Spool) {
	r.spool, r.errs = s, map[string]error{}
	r.status = UploadStatus{PID: os.Getpid(), Began: s.now()}
	r.save()
}

// save writes the status. The caller has mu, or is alone.
func (r *report) save() {
	r.status.Time = r.spool.now()
	if text, err := json.Marshal(r.status); err == nil {
		_ = ReplaceFile(r.spool.outbox.path(statusName), append(text, '\n')) // people see an older one
	}
}

// sent adds bytes.
func (r *report) sent(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Sent += n
	if r.spool.now().Sub(r.status.Time) >= reportEvery {
		r.save()
	}
}

// note says how something that is tried again and again went.
func (r *report) note(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.status.Obstacle
	if err == nil {
		delete(r.errs, what)
	} else {
		r.errs[what] = err
	}
	r.status.Obstacle = r.obstacle()
	if err != nil {
		r.status.Tried = r.spool.now()
	}
	if err != nil || (before == nil) != (r.status.Obstacle == nil) || before != nil && before.Text != r.status.Obstacle.Text {
		r.save()
	}
}

// obstacle returns the one of the errors that matters most.
func (r *report) obstacle() *Obstacle {
	for _, what := range []string{"open", "send", "tend", "beat"} {
		err := r.errs[what]
		if err == nil {
			continue
		}
		if r.since.IsZero() {
			r.since = r.spool.now()
		}
		return &Obstacle{Since: r.since, Kind: replicate.KindOf(err), Text: err.Error(), Hint: replicate.HintOf(err)}
	}
	r.since = time.Time{}
	return nil
}

// warn says what cannot be mended.
func (r *report) warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Warning = text
	r.save()
}

func (r *report) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.save()
}
