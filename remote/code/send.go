package code

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// maxChanges is how often a sender begins again because a file is not any more what it announced.
const maxChanges = 5

// lastWords is how long a sender that cannot write any more waits for the reason.
const lastWords = 5 * time.Second

// batch is how much content goes into one message: much enough to compress small files together.
const batch = 1 << 20

// maxUnasked is how much goes without being asked for, of files that nobody remembers to have sent: asking is a round trip, and if it is there after all
// no more than the time for so much is lost.
const maxUnasked = 1 << 20

// A Phase is what a sender is doing.
type Phase string

// The phases, in their order. Files that changed while they were sent lead back.
const (
	Reading Phase = "reading" // files whose hashes are not remembered
	Sending Phase = "sending" // what the other end lacks
)

// SendOptions says how to send.
type SendOptions struct {
	Progress func(phase Phase, done, total int64) // bytes; called by one goroutine at a time; may be nil
}

// Send takes the tree to a Receive at the other end of rw. Only what that does not have travels. What arrived before an error or the end of ctx stays
// over there, and Send can be called again with another rw: after either rw is closed. Otherwise nothing was read beyond what Receive said.
func (t *Tree) Send(ctx context.Context, rw io.ReadWriteCloser, o SendOptions) (Report, error) {
	defer context.AfterFunc(ctx, func() { rw.Close() })()
	s := &sender{Tree: t, wire: newWire(rw), progress: o.Progress, memory: loadMemory(t.options.Memory), replies: make(chan reply, 1)}
	ended := make(chan struct{})
	var listener sync.WaitGroup
	listener.Go(func() { s.listen(rw, ended) })
	err := s.send(ctx)
	if replicate.KindOf(err) == replicate.Unavailable {
		patience := time.AfterFunc(lastWords, func() { rw.Close() })
		err = s.why(err)
		patience.Stop()
	}
	close(ended)
	if err != nil {
		rw.Close()
	}
	listener.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	s.report.Wire = s.wire.written
	slices.SortFunc(s.report.LeftOut, func(a, b repository.LeftOut) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(s.report.Torn)
	return s.report, problem("send", t.options.Root, err)
}

// A reply is what the other end says.
type reply struct {
	kind    byte
	payload []byte
	err     error // the last one
}

// listen receives replies up to the last one. An error closes rw, as a sender that is writing must not wait for an end that does not read any more.
func (s *sender) listen(rw io.Closer, ended <-chan struct{}) {
	defer close(s.replies)
	for {
		var r reply
		r.kind, r.payload, r.err = s.wire.receive()
		if r.err == nil && r.kind == msgError {
			r.err = remoteError(r.payload)
		}
		select {
		case s.replies <- r:
		case <-ended:
			return
		}
		if r.err != nil {
			rw.Close()
			return
		}
		if r.kind == msgDone {
			return
		}
	}
}

// why returns the reason why the line is gone, if the other end gave one.
func (s *sender) why(err error) error {
	for r := range s.replies {
		if r.err != nil && replicate.KindOf(r.err) != replicate.Unavailable {
			return r.err
		}
	}
	return err
}

type sender struct {
	*Tree
	wire     *wire
	memory   memory
	progress func(phase Phase, done, total int64)
	manifest Manifest
	fresh    map[string]bool // paths of files that go unasked
	report   Report
	replies  chan reply
}

// errChanged names a file that is not what the manifest says.
type errChanged struct{ entry int }

func (e errChanged) Error() string { return "changed while it was sent" }

// send announces the tree and answers what is wanted, until all of it has arrived.
func (s *sender) send(ctx context.Context) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	for again := 0; ; again++ {
		err := s.offer(ctx)
		changed, ok := errors.AsType[errChanged](err)
		if !ok {
			return err
		}
		e := &s.manifest.Entries[changed.entry]
		if again == maxChanges {
			return replicate.Errorf(replicate.Conflict, "%s keeps changing", e.Path).WithHint("name it in .replicateignore, or wait until it is written")
		}
		if err := s.again(ctx, changed.entry); err != nil {
			return err
		}
	}
}

// offer sends the manifest and what is wanted of it.
func (s *sender) offer(ctx context.Context) error {
	pieces := distinct(&s.manifest)
	unasked := bitmap(len(pieces), func(i int) bool { return s.fresh[s.manifest.Entries[pieces[i].entry].Path] })
	if err := s.wire.manifest(&s.manifest, unasked); err != nil {
		return err
	}
	for answer := unasked; ; {
		wanted, err := chosen(pieces, answer)
		if err == nil {
			err = s.chunks(ctx, wanted)
		}
		if err != nil {
			return err
		}
		r, ok := <-s.replies
		if !ok {
			return errProtocol
		}
		if r.err != nil {
			return r.err
		}
		switch r.kind {
		case msgDone:
			s.arrived()
			return nil
		case msgWanted:
			answer = r.payload
		default:
			return errProtocol
		}
	}
}

// chunks sends pieces. The next message is made while one is written.
func (s *sender) chunks(ctx context.Context, wanted []place) error {
	var total, done int64
	for _, p := range wanted {
		total += p.Size
	}
	ctx, cancel := context.WithCancel(ctx)
	messages := make(chan message, 2)
	var makeErr error // read when messages is closed
	var maker sync.WaitGroup
	maker.Go(func() {
		defer close(messages)
		makeErr = s.batches(ctx, wanted, messages)
	})
	defer maker.Wait()
	defer cancel()
	for m := range messages {
		if err := s.wire.send(m); err != nil {
			return err
		}
		done += int64(m.raw)
		s.report.Sent += int64(m.raw)
		s.show(Sending, done, total)
	}
	if makeErr != nil {
		return makeErr
	}
	return s.wire.flush()
}

// batches reads pieces into messages.
func (s *sender) batches(ctx context.Context, wanted []place, to chan<- message) error {
	var raw []byte
	f := reader{Tree: s.Tree}
	defer f.close()
	for i, p := range wanted {
		var err error
		if raw, err = f.append(raw, &s.manifest, p); err != nil {
			return err
		}
		if i+1 < len(wanted) && int64(len(raw))+wanted[i+1].Size <= batch {
			continue
		}
		select {
		case to <- newMessage(msgChunks, raw):
			raw = raw[:0]
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// A reader reads pieces, keeping the last file open.
type reader struct {
	*Tree
	file  *os.File
	entry int
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// append appends a piece if it still is what the manifest says.
func (r *reader) append(dst []byte, m *Manifest, p place) ([]byte, error) {
	if r.file == nil || r.entry != p.entry {
		r.close()
		f, _, err := r.open(m.Entries[p.entry].Path)
		if err != nil {
			return dst, errChanged{p.entry}
		}
		r.file, r.entry = f, p.entry
	}
	from := len(dst)
	dst = slices.Grow(dst, int(p.Size))[:from+int(p.Size)]
	if _, err := r.file.ReadAt(dst[from:], p.at); err != nil || repository.HashOf(dst[from:]) != p.Hash {
		return dst, errChanged{p.entry}
	}
	return dst, nil
}

// read makes the manifest, from memory where that knows a file.
func (s *sender) read(ctx context.Context) error {
	moment := s.moment()
	s.manifest.Entries = make([]Entry, len(s.sights))
	var jobs []int
	var total int64
	for i := range s.sights {
		x := &s.sights[i]
		e := Entry{Path: x.Path, Kind: x.Kind, Mode: x.Mode, Mtime: x.Mtime, Target: x.Target}
		if x.Kind == repository.File {
			pieces, ok := s.memory.find(x)
			if ok {
				e.Size, e.Pieces = x.Size, pieces
			} else {
				jobs = append(jobs, i)
				total += x.Size
			}
		}
		s.manifest.Entries[i] = e
	}
	var mu sync.Mutex // guards done and what take changes but for the entry
	var done int64
	gone := make([]bool, len(s.sights))
	err := parallel(ctx, len(jobs), func(k int) error {
		i := jobs[k]
		taken, err := s.look(ctx, &s.manifest.Entries[i])
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		gone[i] = !s.note(&s.manifest.Entries[i], taken)
		s.sights[i].Stamp = taken.stamp
		done += s.sights[i].Size
		s.show(Reading, done, total)
		return nil
	})
	if err != nil {
		return err
	}
	s.remember(moment, len(jobs) > 0)
	if s.fresh = map[string]bool{}; total <= maxUnasked && s.options.Memory != "" {
		for _, i := range jobs {
			s.fresh[s.manifest.Entries[i].Path] = true
		}
	}
	s.drop(gone)
	return nil
}

// taken is what reading a file brought.
type taken struct {
	stamp repository.Stamp
	torn  bool
	gone  string // why there is nothing
}

// look reads the file of an entry and fills that in.
func (s *sender) look(ctx context.Context, e *Entry) (t taken, err error) {
	e.Pieces, t.stamp, t.torn, err = s.pieces(ctx, e.Path)
	e.Size, e.Mtime = t.stamp.Size, t.stamp.Mtime
	if gone, ok := errors.AsType[errGone](err); ok {
		return taken{gone: gone.why}, nil
	}
	return t, err
}

// note reports what became of a file, and whether there still is one.
func (s *sender) note(e *Entry, t taken) bool {
	if t.gone != "" {
		s.report.LeftOut = append(s.report.LeftOut, repository.LeftOut{Path: e.Path, Why: t.gone})
		return false
	}
	if t.torn && !slices.Contains(s.report.Torn, e.Path) {
		s.report.Torn = append(s.report.Torn, e.Path)
	}
	return true
}

// again reads a file that changed. It is not remembered, as it changes.
func (s *sender) again(ctx context.Context, entry int) error {
	e := &s.manifest.Entries[entry]
	t, err := s.look(ctx, e)
	if err == nil && !s.note(e, t) {
		s.manifest.Entries = slices.Delete(s.manifest.Entries, entry, entry+1)
	}
	return err
}

// drop removes the entries of files that are gone.
func (s *sender) drop(gone []bool) {
	n := 0
	for i, e := range s.manifest.Entries {
		if !gone[i] {
			s.manifest.Entries[n] = e
			n++
		}
	}
	s.manifest.Entries = s.manifest.Entries[:n]
}

// remember replaces the memory by what is known now of files whose stamps tell later changes apart.
func (s *sender) remember(moment time.Time, fresh bool) {
	if s.options.Memory == "" || !fresh {
		return
	}
	now := memory{}
	for i := range s.sights {
		x, e := &s.sights[i], &s.manifest.Entries[i]
		if x.Kind == repository.File && x.Stamp != (repository.Stamp{}) && x.Settled(moment) && !slices.Contains(s.report.Torn, x.Path) {
			now[x.Path] = remembered{stamp: x.Stamp, pieces: e.Pieces}
		}
	}
	_ = now.save(s.options.Memory) // without it the files are read again
}

// arrived counts what arrived.
func (s *sender) arrived() {
	for i := range s.manifest.Entries {
		if e := &s.manifest.Entries[i]; e.Kind != repository.Dir {
			s.report.Files++
			s.report.Bytes += e.Size
		}
	}
}

func (s *sender) show(phase Phase, done, total int64) {
	if s.progress != nil {
		s.progress(phase, done, total)
	}
}
