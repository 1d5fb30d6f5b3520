package recorder

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// maxLeftOut is how many of the paths that were not saved an answer lists, largest first.
	maxLeftOut = 100
	// warnEvery is how often a client is warned of one thing.
	warnEvery = time.Minute
	// goneEvery is how often a detached recorder looks whether somebody else has ended its experiment. It costs a readdir.
	goneEvery = time.Second
	// cellsPath is where a commit has the cells of a notebook.
	cellsPath = ".replicate/cells.py"
)

// Serve carries out what a client writes to in and answers on out, until in ends or the client's process is gone. An experiment that
// was not ended by then ends as crashed. in and out must be pipes or sockets. o.Tell is not used: the client is told.
func Serve(ctx context.Context, in, out *os.File, o Options) error {
	s := &server{in: &inlet{file: in}, out: &outlet{file: out}, lines: newQueue(), warned: map[string]time.Time{}}
	s.o = o
	s.o.Tell = s.tell
	var others sync.WaitGroup
	others.Go(func() { s.lines.fill(s.in) })
	s.others = &others
	s.stopWatch = make(chan struct{})
	err := s.work(ctx)
	close(s.stopWatch)
	s.in.drain()
	others.Wait()
	return err
}

// A server is one client's recorder. Its fields belong to the goroutine that works, but for those with a comment.
type server struct {
	o     Options
	in    *inlet  // read by its own goroutine
	out   *outlet // used by all
	lines *queue  // used by all

	others    *sync.WaitGroup
	stopWatch chan struct{}
	gone      chan struct{} // closed when the client's process is gone; nil if it never said who it is

	session  *Session
	detached bool
	logged   []repository.Point // read and not yet handed on

	mu     sync.Mutex // guards warned
	warned map[string]time.Time
}

// work carries out lines in order.
func (s *server) work(ctx context.Context) error {
	for {
		block, ok := s.lines.take()
		if !ok {
			break
		}
		for line := range bytes.Lines(block) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				s.line(ctx, line)
			}
		}
		s.hand()
	}
	if s.session == nil {
		return nil
	}
	if s.detached && s.outlive(ctx) {
		return s.session.leave(ctx)
	}
	if s.session.guest {
		return s.session.leave(ctx)
	}
	return s.session.End(ctx, replicate.Crashed, nil)
}

// line carries out one line.
func (s *server) line(ctx context.Context, line []byte) {
	r, err := parseRequest(line)
	if err == nil && r.Op == "log" {
		err = s.log(r)
		if err == nil && !r.wanted() {
			return
		}
	}
	s.hand() // points come before what follows them
	var result any
	if err == nil {
		result, err = s.request(ctx, r)
	}
	if r.wanted() {
		s.answer(r, result, err)
	} else if err != nil && !errors.Is(err, errUnknown) {
		s.tell(warningOf(err))
	}
}

func (s *server) answer(r *request, result any, err error) {
	line := encodeAnswer(r.ID, result)
	if err != nil {
		line = encode(refusal{r.ID, refused{replicate.KindOf(err), err.Error(), replicate.HintOf(err)}})
	}
	_ = s.out.answer(line) // a client that is gone is seen by the reader or the watcher
}

// errUnknown is the one error that a request without an id does not even warn of: a newer client may send what this version
// does not know.
var errUnknown = errors.New("unknown operation")

// request carries out everything but log.
func (s *server) request(ctx context.Context, r *request) (any, error) {
	switch r.Op {
	case "log":
		return nil, nil
	case "hello":
		return s.hello(r)
	case "init":
		return s.begin(ctx, r)
	case "commit", "set", "dropped", "end":
		if s.session == nil {
			return nil, replicate.Errorf(replicate.Usage, "%s before init, or after end", r.Op)
		}
	}
	switch r.Op {
	case "commit":
		return s.commit(ctx, r)
	case "set":
		return nil, s.set(ctx, r)
	case "dropped":
		return nil, replicate.Errorf(replicate.Unavailable, "%d points were dropped, as the recorder did not take them in time", r.Points)
	case "end":
		return s.end(ctx, r)
	}
	return nil, replicate.Errorf(replicate.Usage, "%w %q", errUnknown, r.Op)
}

func (s *server) hello(r *request) (any, error) {
	if r.Protocol < 1 {
		return nil, replicate.Errorf(replicate.Usage, "client speaks protocol %d, recorder %s speaks %d", r.Protocol, replicate.Version, Protocol)
	}
	if r.Detached && r.PID <= 0 {
		return nil, replicate.Errorf(replicate.Usage, "detached from nothing: hello without a pid")
	}
	s.detached = r.Detached
	if r.PID > 0 && s.gone == nil {
		s.gone = make(chan struct{})
		s.others.Go(func() {
			if watchProcess(r.PID, s.stopWatch) {
				s.in.drain()
				s.out.hangUp()
				close(s.gone)
			}
		})
	}
	return greeting{min(r.Protocol, Protocol), replicate.Version}, nil
}

func (s *server) begin(ctx context.Context, r *request) (any, error) {
	if s.session != nil {
		return nil, replicate.Errorf(replicate.Usage, "init while experiment %s is recorded", s.session.experiment.Short())
	}
	session, begun, err := begin(ctx, r, s.o)
	if err != nil {
		return nil, err
	}
	s.session = session
	return begun, nil
}

func (s *server) log(r *request) error {
	if s.session == nil {
		return replicate.Errorf(replicate.Usage, "log before init, or after end")
	}
	step, err := r.step()
	if err != nil {
		return err
	}
	s.logged = append(s.logged, repository.Point{Step: step, Time: r.at(s.o.Now), Metrics: r.Metrics})
	return nil
}

// hand passes the points that were read on to the session, all at once.
func (s *server) hand() {
	if len(s.logged) > 0 {
		s.session.Log(s.logged...)
		s.logged = nil
	}
}

func (s *server) commit(ctx context.Context, r *request) (any, error) {
	start := time.Now()
	step, err := r.step()
	if err != nil {
		return nil, err
	}
	if r.Metric != nil {
		if err := s.session.setMetric(ctx, replicate.Metric(*r.Metric)); err != nil {
			return nil, err
		}
	}
	c := repository.CommitRequest{
		Step: step, Time: r.at(s.o.Now), Metrics: r.Metrics, Message: r.Message, Paths: s.session.InRoot(r.Cwd, r.Path), IfChanged: r.IfChanged,
	}
	if r.Cells != "" {
		c.Extra = map[string][]byte{cellsPath: []byte(r.Cells)}
	}
	row, snapshot, err := s.session.Commit(ctx, c)
	if err != nil {
		return nil, err
	}
	s.session.look.imported(r.Modules)
	return committed{
		Commit: row.ID, Step: row.Step, Files: row.Files, Changed: snapshot.Changed, Bytes: row.Bytes, MS: time.Since(start).Milliseconds(),
	}, nil
}

func (s *server) set(ctx context.Context, r *request) error {
	if r.Metric != nil {
		if err := s.session.setMetric(ctx, replicate.Metric(*r.Metric)); err != nil {
			return err
		}
	}
	fields := map[string]json.RawMessage{}
	if r.Name != "" {
		fields["name"] = raw(r.Name)
	}
	if r.Note != "" {
		fields["note"] = raw(r.Note)
	}
	if len(r.Tags) > 0 {
		fields["tags"] = tagField(r.Tags)
	}
	if len(fields) == 0 {
		return nil
	}
	return s.session.writer.Set(ctx, fields)
}

func (s *server) end(ctx context.Context, r *request) (any, error) {
	status := cmp.Or(r.Status, replicate.Finished)
	if !status.Final() {
		return nil, replicate.Errorf(replicate.Usage, "%q is no end of an experiment", status)
	}
	s.session.look.imported(r.Modules)
	fields := map[string]json.RawMessage{}
	if r.Traceback != "" {
		fields["error"] = raw(failureOf(r.Traceback))
	}
	if r.ExitCode != nil && !s.session.guest {
		fields["exit_code"] = raw(*r.ExitCode)
	}
	session := s.session
	s.session = nil
	if err := session.End(ctx, status, fields); err != nil {
		return nil, err
	}
	return ended{session.Wait(ctx, r.patience(), func(left int64) { s.progress(r, left) })}, nil
}

// progress says how much is left to be sent.
func (s *server) progress(r *request, left int64) {
	_ = s.out.answer(encode(underWay{r.ID, ended{left}})) // as an answer
}

// outlive keeps the experiment of a client that left on purpose, until the process it named is gone or somebody else has ended the
// experiment. It reports whether somebody has.
func (s *server) outlive(ctx context.Context) bool {
	tick := time.NewTicker(goneEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.gone:
			return s.session.endedElsewhere(ctx)
		case <-tick.C:
			if !s.session.beating(ctx) && s.session.endedElsewhere(ctx) {
				return true
			}
		}
	}
}

// tell passes a remark on to the client: warnings of one kind once a minute.
func (s *server) tell(r Remark) {
	if r.Warning == "" || s.isNew(r) {
		s.out.remark(r)
	}
}

// isNew reports whether a warning was not given for a minute. Numbers in it make no difference, and where the same thing failed and the same helps, the words do not either.
func (s *server) isNew(r Remark) bool {
	warning := r.Warning
	if r.Hint != "" {
		doing, _, _ := strings.Cut(warning, ":")
		warning = doing + r.Hint
	}
	cause := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, warning)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.warned[cause]; ok && now.Sub(last) < warnEvery {
		return false
	}
	s.warned[cause] = now
	return true
}

// largest returns the paths with the most bytes first, and no more of them than people want to know.
func largest(left []repository.LeftOut) []repository.LeftOut {
	sorted := append([]repository.LeftOut{}, left...) // never null
	slices.SortStableFunc(sorted, func(a, b repository.LeftOut) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return sorted[:min(len(sorted), maxLeftOut)]
}

// maxTraceback is how much of a traceback is kept: its end, which says what happened.
const maxTraceback = 8 << 10

// failureOf reads a traceback of Python: the last line that is not indented begins with the type.
func failureOf(traceback string) replicate.Failure {
	f := replicate.Failure{Traceback: traceback}
	if len(traceback) > maxTraceback {
		f.Traceback = strings.ToValidUTF8(traceback[len(traceback)-maxTraceback:], "")
	}
	for line := range strings.Lines(strings.TrimSpace(traceback)) {
		kind, message, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
		if kind != "" && kind != "Traceback (most recent call last):" && !strings.ContainsAny(kind, " \t") {
			f.Type, f.Message = kind, message
		}
	}
	return f
}
