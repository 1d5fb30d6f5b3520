package job

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

// Exit codes of a supervisor that are not the job's own.
const (
	ExitTimeout       = 124 // Spec.Timeout is over
	ExitBroken        = 125 // the supervisor could not do its work, no job ran
	ExitNotExecutable = 126
	ExitNotFound      = 127
	ExitSignal        = 128 // and the number of the signal
)

// A Recorder writes a job's life into its experiment. It is called by one goroutine at a time, and must wait for local disk at most. Its
// errors are told to people and stop nothing.
type Recorder interface {
	// Status says how far the job is: waiting, running. detail says for what it waits.
	Status(ctx context.Context, status replicate.Status, detail string) error
	// Output adds to the recorded output.
	Output([]byte)
	// Commit makes one commit of the working directory, if the experiment has none.
	Commit(context.Context) error
	// End records the end and closes the recorder. detail is what the code does not say.
	End(ctx context.Context, status replicate.Status, exitCode int, detail string) error
}

// An Outbox is what the commits of a job go through when its storage is a bucket.
type Outbox interface {
	// Idle reports whether there is something to send and nobody sends.
	Idle() bool
	// Uploader returns a command, not started, that sends what is there and what comes, and ends when nothing is left and nobody writes.
	Uploader() (*exec.Cmd, error)
	// Unsent says what is left. Of an empty outbox it is zero.
	Unsent() Unsent
}

// Options are what a supervisor knows of the process around it.
type Options struct {
	Dir    string // the job's
	Locks  string // of leases, shared by all jobs of the machine
	Self   string // our own binary, for PATH; "../python" of its directory, if there is one, is for PYTHONPATH
	Stdin  io.Reader
	Stdout io.Writer // gets the first frames; may be nil
	Env    []string  // name=value: what the job's environment is made of

	// Receive takes what the job needs from a client that sends it behind the job's line on Stdin, and answers on Stdout, where nothing else is
	// said before it returns. It reads nothing beyond. Nil: everything is there. It is called as the supervisor's user, as long as there is no
	// spec.json, so that this says that everything is there.
	Receive func(ctx context.Context, id replicate.ID, rw io.ReadWriter) error
	// Record begins recording, when the job is known; nil records nothing. It is called as the job's user. tell says something to people; it may
	// be called at any time, and does not wait.
	Record func(ctx context.Context, spec Spec, secrets Secrets, tell func(string)) (Recorder, error)
	// Outbox opens what the commits of a job go through, nil if its storage is local. It may be nil.
	Outbox func(context.Context, Spec, Secrets) (Outbox, error)
	// Fetched drops what the job recorded, when somebody has fetched all of it. It may be nil.
	Fetched func()
	// Now is the clock.
	Now func() time.Time
	// Signals of the process: TERM stops, INT interrupts.
	Signals <-chan os.Signal
	// RetryPause is that before the second attempt; it doubles. 0: ten seconds.
	RetryPause time.Duration
}

const (
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
)

// Supervise gets a job, runs it to its end and returns its exit code. It returns when nothing is left to do: the end is
// recorded and commits are sent. Called again in the same directory it goes on: after the end it returns the same code at once.
//
// An error says why no job ran, with the code ExitBroken, or why what an ended job left cannot be sent.
func Supervise(ctx context.Context, o Options) (int, error) {
	s, err := open(o)
	if err != nil {
		return ExitBroken, &replicate.Error{Op: "supervise", Path: o.Dir, Kind: replicate.KindOf(err), Err: err}
	}
	defer s.close()
	if s.state.Phase == Exited {
		return s.state.ExitCode, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.listen(ctx)
	defer s.background.Wait()
	defer cancel()
	return s.live(ctx)
}

// A supervisor is one process's part in the life of a job.
type supervisor struct {
	Options
	lock   *os.File
	echo   *echo
	scribe *scribe
	asks   *asks
	reaper *reaper
	leases *leases
	begun  State // what an earlier supervisor left
	told   chan string

	background sync.WaitGroup // what listens and sends

	whole   chan struct{} // closed when everything is there that comes with the job: from then on Stdout is the echo's
	trusted chan struct{} // closed when its secrets are
	leave   chan struct{} // closed when what is left to send shall stay here

	mu      sync.Mutex // guards what follows; held while a small local file is replaced, so that the last is the newest
	state   State
	spec    *Spec
	secrets *Secrets
	sender  *sender
	left    bool
}

// open makes this process the supervisor of a directory, and finds out what an earlier one did.
func open(o Options) (*supervisor, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := hold(o.Dir)
	if err != nil {
		return nil, err
	}
	if f, err := os.OpenFile(filepath.Join(o.Dir, followersName), os.O_RDONLY|os.O_CREATE, 0o600); err == nil {
		f.Close() // where that cannot be made nobody waits
	}
	s := &supervisor{
		Options: o, lock: lock, asks: newAsks(), reaper: newReaper(),
		told: make(chan string, maxTold), whole: make(chan struct{}), trusted: make(chan struct{}), leave: make(chan struct{}),
	}
	if err := s.recover(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// recover reads what an earlier supervisor left. One that was killed may have written the end into the log and not into status.json.
func (s *supervisor) recover() error {
	state, err := ReadState(os.DirFS(s.Dir))
	if err != nil && !isMissing(err) {
		return err
	}
	s.state = state
	if s.state.Phase == Exited {
		return nil
	}
	s.echo = startEcho(s.Stdout, s.whole)
	log, err := openLogWriter(s.Dir, usualLimits, s.Now, s.echo)
	if err != nil {
		return err
	}
	s.scribe = startScribe(log)
	if log.end != nil && !s.state.Ended() {
		s.state = *log.end
	}
	s.begun = s.state
	if !s.state.Ended() {
		s.state.Protocol, s.state.Phase, s.state.Reason = Protocol, Preparing, ""
		if s.state.Created.IsZero() {
			s.state.Created = s.Now()
		}
	}
	return s.update(func(*State) {})
}

func (s *supervisor) close() {
	if s.scribe != nil {
		_ = s.scribe.close() // the end was made durable before
	}
	s.echo.flush()
	if os.Getpid() == 1 {
		if s.lingers() && waitForFetch(s.Dir, fetchPatience) && s.Fetched != nil {
			s.Fetched()
		}
		waitForFollowers(s.Dir, followersPatience)
	}
	if s.leases != nil {
		s.leases.close()
	}
	s.lock.Close()
}

// lingers reports whether somebody may be about to fetch what the job left.
func (s *supervisor) lingers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec != nil && s.spec.Linger && !s.begun.Ended()
}

// update changes the state and writes it down.
func (s *supervisor) update(f func(*State)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
	return replace(filepath.Join(s.Dir, statusName), s.state)
}

// phase says what the supervisor does now. That it cannot be written down stops nothing.
func (s *supervisor) phase(p Phase, reason string) {
	_ = s.update(func(state *State) { state.Phase, state.Reason = p, reason })
}

// listen begins to hear signals, clients and children.
func (s *supervisor) listen(ctx context.Context) {
	if os.Getpid() != 1 {
		adopt()
	}
	s.background.Go(func() { s.reaper.run(ctx) })
	s.background.Go(func() { s.hear(ctx) })
	s.background.Go(func() { s.pass(ctx) })
	controller, err := serve(s.Dir, s.answer)
	if err != nil {
		s.scribe.say("nobody can ask this job anything: %v", err)
		return
	}
	s.background.Go(func() {
		<-ctx.Done()
		controller.close()
	})
}

// hear turns signals of the process into what they ask for.
func (s *supervisor) hear(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case got := <-s.Signals:
			if got == os.Interrupt {
				s.asks.ask(interrupted, false)
			} else {
				s.asks.ask(outside, false)
			}
			s.goAway()
		}
	}
}

// goAway ends the sending of an ended job: what is left stays here.
func (s *supervisor) goAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Ended() && !s.left {
		s.left = true
		close(s.leave)
	}
}

const (
	// maxTold is how much the recorder may tell at once; more of it is dropped.
	maxTold = 64
	// tellAgain is how often the same is told.
	tellAgain = time.Minute
)

// tell passes on what the recorder has for people.
func (s *supervisor) tell(text string) {
	select {
	case s.told <- text:
	default:
	}
}

// pass writes what the recorder tells into the log, of which the end is the end.
func (s *supervisor) pass(ctx context.Context) {
	last := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case text := <-s.told:
			now := s.Now()
			if at, ok := last[text]; (!ok || now.Sub(at) > tellAgain) && !s.now().Ended() {
				last[text] = now
				s.scribe.say("%s", text)
			}
		}
	}
}

// answer carries out a request.
func (s *supervisor) answer(r Request) Answer {
	switch r.Op {
	case OpStatus:
	case OpSignal:
		if s.now().Ended() {
			if r.Signal == Kill {
				s.goAway()
			}
		} else if err := s.asks.signal(r.Signal); err != nil {
			return refuse(err)
		}
	case OpSecrets:
		if r.Secrets == nil {
			return refuse(replicate.Errorf(replicate.Usage, "no secrets"))
		}
		s.take(Line{Secrets: r.Secrets})
	default:
		return refuse(replicate.Errorf(replicate.Usage, "unknown request %q", string(r.Op)))
	}
	state := s.now()
	if outbox := s.outbox(); outbox != nil {
		state.Unsent = outbox.Unsent()
	}
	return Answer{State: &state}
}

// now returns the state, with what changes all the time.
func (s *supervisor) now() State {
	length := s.scribe.log.length.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Log = length
	return state
}

// outbox is what the job's commits go through, nil as long as there is none.
func (s *supervisor) outbox() Outbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sender == nil {
		return nil
	}
	return s.sender.outbox
}

// take accepts what a client sends: the job if there is none yet, and newer secrets.
func (s *supervisor) take(line Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line.Job != nil && s.spec == nil {
		s.spec = line.Job
		if s.spec.Came.IsZero() { // else an earlier supervisor had it
			s.spec.Came = s.Now().UTC()
		}
	}
	if line.Secrets == nil {
		return
	}
	if s.secrets == nil {
		close(s.trusted)
	}
	s.secrets = line.Secrets
	if s.sender != nil {
		s.sender.renew(line.Secrets.Storage)
	}
}
