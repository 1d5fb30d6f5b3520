package job

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// drainFor is how long commits that cannot be sent keep an ended job's machine busy. They stay in its directory.
	drainFor = 24 * time.Hour
	// unsentEvery is how often it is looked what is left to send. It costs two readdirs.
	unsentEvery = 200 * time.Millisecond
	// An uploader that failed is followed by another after 5 looks; that doubles up to 150, half a minute.
	firstPause = 5
	lastPause  = 150
)

// A sender keeps an uploader at work while there is something to send. The uploader has the credentials of the storage in its environment.
type sender struct {
	outbox Outbox
	env    []string
	dir    string
	reaper *reaper

	mu      sync.Mutex // guards what follows
	secrets map[string]string
	process *exec.Cmd     // at work, or nil
	renewed chan struct{} // has room for one: there are newer credentials
}

func newSender(o Options, outbox Outbox, r *reaper, secrets map[string]string) *sender {
	return &sender{outbox: outbox, env: o.Env, dir: o.Dir, reaper: r, secrets: secrets, renewed: make(chan struct{}, 1)}
}

// renew gives newer credentials. An uploader that has older ones makes room for the next.
func (s *sender) renew(secrets map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if maps.Equal(secrets, s.secrets) {
		return
	}
	s.secrets = secrets
	if s.process != nil {
		_ = s.process.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	select {
	case s.renewed <- struct{}{}:
	default:
	}
}

// run keeps an uploader at work until ctx ends, which ends that too.
func (s *sender) run(ctx context.Context) {
	tick := time.NewTicker(unsentEvery)
	defer tick.Stop()
	wait, next := 0, firstPause // in looks: until the next try, and after it
	for {
		if wait == 0 && s.outbox.Idle() {
			if s.upload(ctx) == nil {
				next = firstPause
			} else {
				wait, next = next, min(2*next, lastPause)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.renewed:
			wait = 0
		case <-tick.C:
			wait = max(0, wait-1)
		}
	}
}

// upload runs one uploader to its end.
func (s *sender) upload(ctx context.Context) error {
	cmd, err := s.outbox.Uploader()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "uploader.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals to the job's group are not for it
	if err := s.start(cmd); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	err = cmd.Wait()
	s.reaper.waited(cmd)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = nil
	return errors.Join(err, ctx.Err())
}

func (s *sender) start(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	env := parseVariables(s.env)
	maps.Copy(env, s.secrets)
	cmd.Env = env.pairs()
	err := s.reaper.start(cmd)
	if err == nil {
		s.process = cmd
	}
	return err
}
