package fs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// state is the folder by which a mount is known to later commands: lock (held while its supervisor lives), state.json, log.
type state struct {
	dir  string
	lock *os.File // nil unless we are the supervisor
}

// stateRecord is state.json.
type stateRecord struct {
	Dir        string    `json:"dir"`
	Storage    string    `json:"storage"`
	Commit     string    `json:"commit,omitempty"`
	Started    time.Time `json:"started"`
	Supervisor int       `json:"supervisor"` // pids
	Server     int       `json:"server"`
	Restarts   int       `json:"restarts"`
}

// stateOf returns the state of the mount at dir, whether there is one or not.
func stateOf(stateDir, dir string) *state {
	h := sha256.Sum256([]byte(dir))
	return &state{dir: filepath.Join(stateDir, "mounts", hex.EncodeToString(h[:8]))}
}

func (st *state) path(name string) string { return filepath.Join(st.dir, name) }

// endsWithin is how long a mount waits for an earlier one at the same place whose last user has just gone: its processes need a moment to
// notice.
const endsWithin = 3 * time.Second

// hold makes the folder and takes its lock for the life of this process.
func (st *state) hold() error {
	for deadline := time.Now().Add(endsWithin); ; time.Sleep(20 * time.Millisecond) {
		if held, err := st.tryHold(); held || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return replicate.Errorf(replicate.Conflict, "an earlier mount there is still ending").
				WithHint("replicate umount --force ends it")
		}
	}
}

// tryHold takes the lock if it is free. A mount that ends removes the folder with the lock in it, so the file that was locked must
// still be the one that is there.
func (st *state) tryHold() (bool, error) {
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return false, &replicate.Error{Op: "make", Path: st.dir, Kind: replicate.KindOf(err), Err: unwrapPath(err)}
	}
	f, err := os.OpenFile(st.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // removed between the two calls
	}
	if err != nil {
		return false, &replicate.Error{Op: "open", Path: st.path("lock"), Kind: replicate.KindOf(err), Err: unwrapPath(err)}
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		locked, err := f.Stat()
		there, thereErr := os.Stat(st.path("lock"))
		if err == nil && thereErr == nil && os.SameFile(locked, there) {
			st.lock = f
			return true, nil
		}
	}
	f.Close()
	return false, nil
}

// held reports whether a supervisor lives.
func (st *state) held() bool {
	f, err := os.Open(st.path("lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// waitEnd waits until no supervisor lives, at most for d. That it still lives is no error.
func (st *state) waitEnd(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); st.held() && time.Now().Before(end) && ctx.Err() == nil; {
		pause(ctx, 20*time.Millisecond)
	}
	return ctx.Err()
}

func (st *state) write(r stateRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	temporary := st.path("state.json.new")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, st.path("state.json"))
}

func (st *state) read() (r stateRecord, err error) {
	data, err := os.ReadFile(st.path("state.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// kill ends the processes of a mount that could not be aborted.
func (st *state) kill() {
	r, err := st.read()
	if err != nil || !st.held() {
		return
	}
	for _, pid := range []int{r.Supervisor, r.Server} {
		if pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// drop removes the folder of a mount that ended well.
func (st *state) drop() {
	away := fmt.Sprintf("%s.%d", st.dir, os.Getpid()) // at once, so that nothing of the next mount there is removed
	if os.Rename(st.dir, away) == nil {
		_ = os.RemoveAll(away)
	}
}

// openLog opens the log that supervisor and server write to.
func (st *state) openLog() (*os.File, error) {
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(st.path("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// answerWait is how long a mount may take to say that it is alive.
const answerWait = 2 * time.Second

// Status lists the mounts that this process sees, whoever made them.
func Status(stateDir string) ([]Mounted, error) {
	table, err := mountTable()
	if err != nil {
		return nil, err
	}
	var mounts []Mounted
	for _, m := range table {
		if !m.ours() {
			continue
		}
		st := stateOf(stateDir, m.dir)
		r, _ := st.read()
		mounts = append(mounts, Mounted{
			Dir: m.dir, Storage: m.source, Commit: r.Commit, State: answer(m.dir), PID: r.Supervisor, Log: st.path("log"),
		})
	}
	return mounts, nil
}

// answer asks a mount whether it is alive. EACCES is an answer: it is another user's.
func answer(dir string) string {
	reply := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		reply <- unix.Statfs(dir, &st)
	}()
	select {
	case err := <-reply:
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			return StateDead
		}
		return StateOK
	case <-time.After(answerWait):
		return StateSilent
	}
}
