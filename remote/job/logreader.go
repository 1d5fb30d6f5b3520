package job

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// followEvery is how often a follower looks for more: soon enough for a progress bar, and 50 cheap reads a second.
	followEvery = 20 * time.Millisecond
	// lookEvery is after how many of these it looks whether the job has ended.
	lookEvery = 10
)

// OpenLog returns the frames of the log in a job's directory from an offset on, all whole ones that are there now. The directory may be a copy.
func OpenLog(dir fs.FS, from int64) (io.ReadCloser, error) {
	return &logReader{dir: dir, next: from, wait: func() error { return io.EOF }}, nil
}

// FollowLog is OpenLog that waits for more until the job has ended or ctx has, or its supervisor is gone. A supervisor that ends, and with it its
// container, waits a moment for who has not closed what this returns.
func FollowLog(ctx context.Context, dir string, from int64) (io.ReadCloser, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	f := &follower{ctx: ctx, dir: dir, tick: time.NewTicker(followEvery)}
	f.log = &logReader{dir: os.DirFS(dir), next: from, wait: f.wait, untilEnd: true}
	if here, err := os.Open(filepath.Join(dir, followersName)); err == nil { // else the supervisor has only begun
		f.here = here
		_ = unix.Flock(int(here.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	}
	return f, nil
}

const (
	// followersName is a file that followers have locked, together.
	followersName = "followers"
	// followersPatience is how long an ended supervisor waits for those who do not read.
	followersPatience = time.Second
)

// FetchedName is a file in a job's directory that says that all of its commits are elsewhere.
const FetchedName = "fetched"

// SettleName is a file in a job's directory that says that the job is over: a supervisor that is started again runs it no more, records that it died with the
// supervisor before, and sends what is left.
const SettleName = "settle"

// fetchPatience is how long an ended supervisor waits for who fetches: some round trips, and a start of a program.
const fetchPatience = 3 * time.Second

// waitForFetch waits until somebody says that everything is fetched, or patience is over, and reports which.
func waitForFetch(dir string, patience time.Duration) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(followEvery / 4) {
		if _, err := os.Stat(filepath.Join(dir, FetchedName)); err == nil {
			return true
		}
	}
	return false
}

// waitForFollowers waits until nobody follows the log, or patience is over, and reports which.
func waitForFollowers(dir string, patience time.Duration) bool {
	f, err := os.Open(filepath.Join(dir, followersName))
	if err != nil {
		return true
	}
	defer f.Close()
	for deadline := time.Now().Add(patience); unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; time.Sleep(followEvery / 4) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// A follower is a logReader that waits.
type follower struct {
	ctx   context.Context
	dir   string
	log   *logReader
	tick  *time.Ticker
	here  *os.File // locked while it reads; may be nil
	looks int
	over  bool // nothing is added any more: what is read now is all
}

func (f *follower) Read(p []byte) (int, error) { return f.log.Read(p) }

func (f *follower) Close() error {
	f.tick.Stop()
	if f.here != nil {
		f.here.Close()
	}
	return f.log.Close()
}

// wait returns when it is worth to look again, or io.EOF.
func (f *follower) wait() error {
	if f.over {
		return io.EOF
	}
	if f.looks++; f.looks%lookEvery == 1 {
		state, err := ReadState(os.DirFS(f.dir))
		if f.over = err == nil && state.Ended() || !alive(f.dir); f.over {
			return nil // what came before the end may not be read yet
		}
	}
	select {
	case <-f.ctx.Done():
		return f.ctx.Err()
	case <-f.tick.C:
		return nil
	}
}

// A logReader reads the segments of a log one after another and yields whole frames.
type logReader struct {
	dir  fs.FS
	next int64        // the offset of the next frame, or more
	wait func() error // called when there is no more, and nothing pending: nil to look again

	untilEnd bool // nothing is read behind the Note of the end

	file     fs.File
	frames   *FrameReader
	segment  segment
	position int64 // in the file, after the last whole frame
	complete bool  // a later segment exists: nothing is added to this one

	pending bytes.Buffer
	err     error
}

const (
	// readAhead is how much is gathered for one Read, of what is there: every write of it goes through the hands of four processes.
	readAhead = 256 << 10
	// copied is what a reader should take at once.
	copied = readAhead + readSize
)

// errPending says that there is no more, but something that was not read yet.
var errPending = errors.New("pending")

func (r *logReader) Read(p []byte) (int, error) {
	if r.pending.Len() == 0 {
		r.gather()
	}
	if r.pending.Len() > 0 {
		return r.pending.Read(p)
	}
	return 0, r.err
}

// gather takes what frames are there, up to readAhead, and waits only for the first.
func (r *logReader) gather() {
	r.pending.Reset()
	for r.pending.Len() < readAhead && r.err == nil {
		err := r.step()
		if errors.Is(err, errPending) {
			return
		}
		r.err = err
	}
}

// idle waits, unless there is something pending.
func (r *logReader) idle() error {
	if r.pending.Len() > 0 {
		return errPending
	}
	return r.wait()
}

// Close ends the reading.
func (r *logReader) Close() error {
	if r.file == nil {
		return nil
	}
	file := r.file
	r.file = nil
	return file.Close()
}

// step takes one frame, opens a segment, or waits.
func (r *logReader) step() error {
	if r.file == nil {
		opened, err := r.open()
		if err != nil || opened {
			return err
		}
		return r.idle()
	}
	frame, err := r.frames.Next()
	switch {
	case err == nil:
		r.next, r.position = frame.End(), r.frames.consumed
		r.pending.Grow(maxHeader + len(frame.Data) + 1)
		r.pending.Write(frame.Append(r.pending.AvailableBuffer()))
		if r.untilEnd && frame.Stream == Notes && isEnd(frame.Data) {
			return io.EOF
		}
		return nil
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return r.more()
}

func isEnd(note []byte) bool {
	n, err := ParseNote(note)
	return err == nil && n.End != nil
}

// open opens the segment of the next frame.
func (r *logReader) open() (bool, error) {
	for {
		list, err := listSegments(r.dir)
		if err != nil {
			return false, err
		}
		s, ok := segmentAt(list, r.next)
		if !ok {
			return false, nil
		}
		err = r.start(s, s == list[len(list)-1])
		if isMissing(err) {
			continue // it was sealed or dropped just now
		}
		return err == nil, err
	}
}

// start begins to read a segment.
func (r *logReader) start(s segment, last bool) error {
	file, err := r.dir.Open(s.path())
	if err != nil {
		return err
	}
	in, err := s.unpack(file)
	if err != nil {
		file.Close()
		return err
	}
	r.file, r.segment, r.position, r.complete = file, s, 0, !s.raw || !last
	r.frames = NewFrameReader(in, r.next)
	return nil
}

// more is for the end of a segment: it goes on to the next one, or waits and reads again from the last whole frame on.
func (r *logReader) more() error {
	if r.complete {
		next, err := r.after()
		if err != nil {
			return err
		}
		r.Close()
		if !next {
			return r.idle()
		}
		return nil
	}
	later, err := r.after()
	if err != nil {
		return err
	}
	seeker, ok := r.file.(io.Seeker)
	if !ok {
		return io.EOF // a copy that does not grow
	}
	if _, err := seeker.Seek(r.position, io.SeekStart); err != nil {
		return err
	}
	r.frames.restart(r.file, r.next, r.position)
	if r.complete = later; later { // what was written before the next segment began is read first
		return nil
	}
	return r.idle()
}

// after reports whether there is a later segment, and makes it the one to open.
func (r *logReader) after() (bool, error) {
	list, err := listSegments(r.dir)
	if err != nil {
		return false, err
	}
	for _, s := range list {
		if s.first > r.segment.first {
			if r.complete {
				r.next = max(r.next, s.first)
			}
			return true, nil
		}
	}
	return false, nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
