package job

import (
	"os/exec"
	"sync"
)

// A reaper waits for orphans: children of the job that outlived their parent. Those that this process has started are waited for by who
// started them: the reaper knows of the ones with a session of their own, and leaves alone whatever is in this process's session.
type reaper struct {
	mu   sync.Mutex // guards mine; held while a process is started, so that it is known before it can end
	mine map[int]bool
}

func newReaper() *reaper { return &reaper{mine: map[int]bool{}} }

// start starts a command that somebody will wait for.
func (r *reaper) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := cmd.Start()
	if err == nil {
		r.mine[cmd.Process.Pid] = true
	}
	return err
}

// waited says that a command was waited for.
func (r *reaper) waited(cmd *exec.Cmd) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mine, cmd.Process.Pid)
}
