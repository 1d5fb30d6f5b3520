package job

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/replicate/replicate"
)

// live takes the job through all of its phases, from where an earlier supervisor left it.
func (s *supervisor) live(ctx context.Context) (int, error) {
	var err error
	if s.begun.Ended() {
		err = s.goOnSending(ctx)
	} else {
		var spec Spec
		var end ending
		if spec, end, err = s.work(ctx); err != nil {
			end = ending{status: replicate.Failed, code: ExitBroken, reason: err.Error()}
		}
		s.end(ctx, spec, end)
	}
	if s.leases != nil {
		s.leases.close()
	}
	s.drain(ctx)
	_ = s.update(func(state *State) { state.Phase, state.Log = Exited, s.scribe.log.length.Load() })
	return s.state.ExitCode, err
}

// work gets the job and runs it. What it returns is how it ended; an error, that it could not be run for a reason of ours.
func (s *supervisor) work(ctx context.Context) (Spec, ending, error) {
	if err := s.know(ctx); err != nil {
		if why := s.asks.why(); why != "" {
			return Spec{}, why.early(), nil
		}
		return Spec{}, ending{}, err
	}
	spec := *s.spec // nobody changes it any more
	if err := s.settle(spec); err != nil {
		return Spec{}, ending{}, err
	}
	end, died := s.died(spec)
	if died {
		return spec, end, s.openBooks(ctx, spec)
	}
	end, err := s.begin(ctx, spec)
	return spec, end, err
}

// died says how a job ended that was killed with an earlier supervisor, if it is not to be tried again.
func (s *supervisor) died(spec Spec) (ending, bool) {
	gone := ending{status: replicate.Crashed, code: ExitSignal + int(syscall.SIGKILL), reason: reasonGone}
	switch {
	case s.begun.Phase == Stopping:
		return asked.of(gone), true
	case s.begun.Attempt > spec.Retries || exists(filepath.Join(s.Dir, SettleName)):
		return gone, true
	}
	return ending{}, false
}

// goOnSending takes up what a job that has ended left to send.
func (s *supervisor) goOnSending(ctx context.Context) error {
	err := s.know(ctx)
	if err == nil {
		err = s.settle(*s.spec)
	}
	if err == nil {
		err = s.openOutbox(ctx, *s.spec, s.secret())
	}
	return err
}

// know reads the job from spec.json, or from stdin the first time, and keeps it.
func (s *supervisor) know(ctx context.Context) error {
	defer close(s.whole)
	file := filepath.Join(s.Dir, specName)
	spec, err := readSpec(file)
	if err != nil && !isMissing(err) {
		return err
	}
	first := err != nil
	if first && s.begun.Phase != "" { // who sent the job to the one before does not send it again
		return errors.New("the supervisor was killed before it had its job")
	}
	if !first {
		s.take(Line{Job: &spec})
	}
	came := make(chan error, 1)
	go func() { // ends with stdin, or with the process
		stdin := bufio.NewReaderSize(s.Stdin, lineBuffer)
		if first {
			err := s.receive(ctx, stdin)
			came <- err
			if err != nil {
				return
			}
		}
		_ = ReadLines(stdin, s.take)
	}()
	if !first {
		return nil
	}
	select {
	case err := <-came:
		if err != nil {
			return err
		}
		return replace(file, s.spec)
	case <-s.asks.stop:
		return errors.New("asked to end before a job came")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive takes the job from stdin, and what comes behind it.
func (s *supervisor) receive(ctx context.Context, stdin *bufio.Reader) error {
	for s.spec == nil {
		if err := readOne(stdin, s.take); err == io.EOF {
			return errors.New("stdin ended, and no job came")
		} else if err != nil {
			return err
		}
	}
	if s.Receive == nil {
		return nil
	}
	return s.Receive(ctx, s.spec.Experiment, struct {
		io.Reader
		io.Writer
	}{stdin, s.Stdout})
}

// settle becomes who the job is, and opens what is not his before.
func (s *supervisor) settle(spec Spec) (err error) {
	if s.leases, err = openLeases(s.Locks, spec.Devices); err != nil {
		return fmt.Errorf("open the leases of GPUs: %w", err)
	}
	if err := become(s.Dir, spec); err != nil {
		return err
	}
	_ = s.update(func(state *State) { state.Experiment = spec.Experiment })
	return nil
}

// begin waits for everything the job needs, and runs it. What it returns is how it ended; an error, that it could not be run.
func (s *supervisor) begin(ctx context.Context, spec Spec) (ending, error) {
	if spec.Secrets && !s.await(ctx, s.trusted, ReasonSecrets) {
		return s.asks.why().early(), nil
	}
	if err := s.openBooks(ctx, spec); err != nil {
		return ending{}, err
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.onStop(cancel)()
	gpus, err := s.leases.acquire(waiting, spec, func(reason string) { s.wait(ctx, reason) })
	switch {
	case err != nil && s.asks.why() != "":
		return s.asks.why().early(), nil
	case err != nil:
		return ending{}, err
	}
	_ = s.update(func(state *State) { state.GPUs = s.leases.held })
	return s.attempts(ctx, spec, gpus), nil
}

// openBooks begins recording and sending.
func (s *supervisor) openBooks(ctx context.Context, spec Spec) error {
	secrets := s.secret()
	if spec.Record && s.Record != nil {
		recorder, err := s.Record(ctx, spec, secrets, s.tell)
		if err != nil {
			return fmt.Errorf("record experiment %s: %w", spec.Experiment.Short(), err)
		}
		s.scribe.do(func() { s.scribe.recorder = recorder })
	}
	return s.openOutbox(ctx, spec, secrets)
}

func (s *supervisor) openOutbox(ctx context.Context, spec Spec, secrets Secrets) error {
	if s.Outbox == nil || !spec.Record {
		return nil
	}
	outbox, err := s.Outbox(ctx, spec, secrets)
	if err != nil || outbox == nil {
		return err
	}
	sender := newSender(s.Options, outbox, s.reaper, secrets.Storage)
	s.mu.Lock()
	if s.sender = sender; s.secrets != nil { // they may have come meanwhile
		sender.secrets = s.secrets.Storage
	}
	s.mu.Unlock()
	s.background.Go(func() { sender.run(ctx) })
	return nil
}

// secret returns the secrets that came last.
func (s *supervisor) secret() Secrets {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secrets == nil {
		return Secrets{}
	}
	return *s.secrets
}

// wait says that the job waits, once for each reason.
func (s *supervisor) wait(ctx context.Context, reason string) {
	s.mu.Lock()
	known := s.state.Phase == Waiting && s.state.Reason == reason
	s.mu.Unlock()
	if known {
		return
	}
	s.phase(Waiting, reason)
	s.scribe.say("waiting: %s", reason)
	s.scribe.recording("record that the job waits", func(r Recorder) error { return r.Status(ctx, replicate.Waiting, reason) })
}

// await waits for a channel to be closed. It returns false if the job was asked to end before.
func (s *supervisor) await(ctx context.Context, c <-chan struct{}, reason string) bool {
	select {
	case <-c:
		return true
	default:
		s.wait(ctx, reason)
	}
	select {
	case <-c:
		return true
	case <-s.asks.stop:
		return false
	}
}

// onStop calls f when the job is asked to end, until what it returns is called.
func (s *supervisor) onStop(f func()) (forget func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
		case <-s.asks.stop:
			f()
		}
	}()
	return func() { close(done) }
}

// attempts runs the job, again where an earlier supervisor left it, until it ends well, was asked to end, or has been tried often enough.
func (s *supervisor) attempts(ctx context.Context, spec Spec, gpus *[]string) ending {
	s.limit(spec)
	for attempt := s.begun.Attempt + 1; ; attempt++ {
		end := s.attempt(ctx, spec, attempt, gpus)
		if !again(end) || s.asks.why() != "" || attempt > spec.Retries {
			return end
		}
		pause := s.retryPause(attempt)
		reason := fmt.Sprintf("attempt %d of %d ended with exit code %d, the next begins in %s", attempt, spec.Retries+1, end.code, pause)
		over := make(chan struct{})
		timer := time.AfterFunc(pause, func() { close(over) })
		if !s.await(ctx, over, reason) {
			timer.Stop()
			return s.asks.why().early()
		}
	}
}

// again reports whether a job that ended so may do better the next time.
func again(e ending) bool {
	return e.code != 0 && e.code != ExitNotFound && e.code != ExitNotExecutable && e.code != ExitBroken
}

func (s *supervisor) retryPause(attempt int) time.Duration {
	pause := s.RetryPause
	if pause == 0 {
		pause = firstRetry
	}
	for range attempt - 1 {
		pause = min(2*pause, lastRetry)
	}
	return pause
}

// limit makes the job end when its time is over. The time counts from the first attempt on, over all of them.
func (s *supervisor) limit(spec Spec) {
	now := s.Now()
	_ = s.update(func(state *State) {
		if state.Started.IsZero() {
			state.Started = now
		}
	})
	if limit := time.Duration(spec.Timeout); limit > 0 {
		time.AfterFunc(limit-now.Sub(s.state.Started), func() { s.asks.ask(timedOut, false) })
	}
}

// attempt runs the job once.
func (s *supervisor) attempt(ctx context.Context, spec Spec, n int, gpus *[]string) ending {
	if s.asks.why() != "" {
		return s.asks.why().early()
	}
	dir, err := filepath.Abs(spec.Cwd)
	if err != nil || !isDir(dir) {
		return ending{status: replicate.Failed, code: ExitBroken, reason: fmt.Sprintf("the working directory %s is not there", spec.Cwd)}
	}
	cmd, err := s.command(spec, dir, n, gpus)
	if err != nil {
		return s.refuse(err)
	}
	listener, out, errs, err := s.scribe.listen()
	if err != nil {
		return ending{status: replicate.Failed, code: ExitBroken, reason: err.Error()}
	}
	cmd.Stdout, cmd.Stderr = out, errs
	s.scribe.note(Note{Attempt: n})
	kills := oomKills()
	_ = s.update(func(state *State) { state.Phase, state.Reason, state.Attempt = Running, "", n })
	process, err := startProcess(cmd, s.reaper)
	out.Close()
	errs.Close()
	if err != nil {
		listener.finish()
		return s.refuse(err)
	}
	s.scribe.recording("record that the job runs", func(r Recorder) error { return r.Status(ctx, replicate.Running, "") })
	s.accompany(process, spec)
	process.sweep()
	listener.finish()
	if os.Getpid() == 1 {
		s.reaper.letOrphansEnd(ctx)
	}
	return s.judge(endingOf(process.cmd.ProcessState.Sys().(syscall.WaitStatus)), oomKills() > kills)
}

// command is the job as a process, not started.
func (s *supervisor) command(spec Spec, dir string, attempt int, gpus *[]string) (*exec.Cmd, error) {
	v := jobVariables(s.Options, spec, s.secret(), attempt, gpus)
	path, err := lookPath(spec.Argv[0], dir, v["PATH"])
	if err != nil {
		return nil, err
	}
	v["PWD"] = dir
	return &exec.Cmd{Path: path, Args: spec.Argv, Dir: dir, Env: v.pairs()}, nil
}

// refuse says why a command did not start, where people look for its output.
func (s *supervisor) refuse(err error) ending {
	s.scribe.say("%v", err)
	return notStarted(err)
}

// accompany waits for the end of a process. When the job is asked to end, all of its processes are asked, and those that are left are killed
// when the grace is over: the one that saves a checkpoint need not be the first.
func (s *supervisor) accompany(p *process, spec Spec) {
	select {
	case <-p.done:
		return
	case <-s.asks.stop:
	}
	why := s.asks.why()
	s.phase(Stopping, string(why))
	grace := time.Duration(spec.Grace)
	if grace == 0 {
		grace = DefaultGrace
	}
	select {
	case <-s.asks.kill:
	default:
		p.signal(why.word())
	}
	over := time.NewTimer(grace)
	defer over.Stop()
	select {
	case <-p.gone():
	case <-s.asks.kill:
	case <-over.C:
		s.scribe.say("the job did not end within %s, and is killed", grace)
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// judge says what the end of an attempt means, with what else is known.
func (s *supervisor) judge(e ending, oom bool) ending {
	e = s.asks.why().of(e)
	if oom {
		_ = s.update(func(state *State) { state.OOM = true })
		if e.code == ExitSignal+int(syscall.SIGKILL) && s.asks.why() == "" {
			e.status, e.reason = replicate.Crashed, "out of memory"
		}
	}
	return e
}

// end records the end, and makes it known: in the experiment, in the log, in status.json.
func (s *supervisor) end(ctx context.Context, spec Spec, e ending) {
	if spec.Commit {
		s.scribe.recording("commit the working directory", func(r Recorder) error { return r.Commit(ctx) })
	}
	s.scribe.recording("record the end", func(r Recorder) error { return r.End(ctx, e.status, e.code, e.reason) })
	s.scribe.do(func() { s.scribe.recorder = nil })
	state := s.now()
	state.Phase, state.Reason, state.Finished = Uploading, e.reason, s.Now()
	state.Status, state.ExitCode, state.Signal = e.status, e.code, e.signal
	s.scribe.do(func() { // before status.json: who sees the end there has read this
		s.scribe.log.note(Note{End: &state})
		s.scribe.log.sync()
	})
	state.Log = s.scribe.log.length.Load()
	_ = s.update(func(known *State) { *known = state })
}

// drain waits until everything is sent, for a day at most, or until the process is asked to end.
func (s *supervisor) drain(ctx context.Context) {
	if s.sender == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	tick := time.NewTicker(unsentEvery)
	defer tick.Stop()
	for {
		left := s.sender.outbox.Unsent()
		if left != s.now().Unsent {
			_ = s.update(func(state *State) { state.Unsent = left })
		}
		if left == (Unsent{}) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-s.leave:
			return
		case <-tick.C:
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// readSpec reads a spec.json.
func readSpec(file string) (Spec, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Spec{}, err
	}
	return ParseSpec(text)
}
