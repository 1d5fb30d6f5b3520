package job

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// readSize is the most that is read, and logged, at once; buffers is how many such pieces may be on their way to the log.
	readSize = 64 << 10
	buffers  = 32
	// maxRecorded is how much output of a job is recorded in its experiment. Who prints more has the log.
	maxRecorded = 1 << 30
	// quiet is how long an ended job's pipes are read while nothing comes, and lastWords while something does: somebody it left behind may hold them.
	quiet     = 250 * time.Millisecond
	lastWords = 10 * time.Second
)

// A scribe writes down what the job says, in one order: a goroutine takes pieces of output and other work one after another, and gives them
// to log and recorder.
type scribe struct {
	log      *logWriter
	recorder Recorder // nil until recording has begun
	recorded int64

	free  chan []byte
	work  chan piece
	ended chan struct{}
}

// A piece is output in a buffer as write wants it, or something to do.
type piece struct {
	stream Stream
	buf    []byte
	call   func()
}

func startScribe(log *logWriter) *scribe {
	s := &scribe{log: log, free: make(chan []byte, buffers), work: make(chan piece, buffers), ended: make(chan struct{})}
	for range buffers {
		s.free <- make([]byte, 0, headroom+readSize+1)
	}
	go s.run()
	return s
}

func (s *scribe) run() {
	defer close(s.ended)
	for p := range s.work {
		if p.call != nil {
			p.call()
			continue
		}
		s.log.write(p.stream, p.buf)
		s.record(p.buf[headroom:])
		s.free <- p.buf[:0]
	}
}

// close waits until everything is written.
func (s *scribe) close() error {
	close(s.work)
	<-s.ended
	return s.log.close()
}

// do has f called in the scribe's goroutine, behind what was read before, and waits for it.
func (s *scribe) do(f func()) {
	done := make(chan struct{})
	s.work <- piece{call: func() { defer close(done); f() }}
	<-done
}

// note writes a Note.
func (s *scribe) note(n Note) { s.do(func() { s.log.note(n) }) }

// say writes a Note for people.
func (s *scribe) say(format string, args ...any) { s.note(Note{Say: fmt.Sprintf(format, args...)}) }

// recording calls the recorder, if there is one. An error is said.
func (s *scribe) recording(what string, f func(Recorder) error) {
	s.do(func() {
		if s.recorder == nil {
			return
		}
		if err := f(s.recorder); err != nil {
			s.log.note(Note{Say: what + ": " + err.Error()})
		}
	})
}

// record adds output to the experiment.
func (s *scribe) record(text []byte) {
	if s.recorder == nil || s.recorded > maxRecorded {
		return
	}
	if s.recorded += int64(len(text)); s.recorded > maxRecorded {
		s.log.note(Note{Say: fmt.Sprintf("output beyond %d MB is not recorded", maxRecorded>>20)})
		return
	}
	s.recorder.Output(text)
}

// A listener reads the pipes of one attempt.
type listener struct {
	scribe  *scribe
	pipes   []*os.File
	readers sync.WaitGroup
	ended   atomic.Int64 // when the job ended, in ns; 0 before
}

// listen reads the streams of a job that writes to what it returns, which are to be closed when the job has them.
func (s *scribe) listen() (l *listener, out, errs *os.File, err error) {
	l = &listener{scribe: s}
	if out, err = l.pipe(Stdout); err != nil {
		return nil, nil, nil, err
	}
	if errs, err = l.pipe(Stderr); err != nil {
		out.Close()
		return nil, nil, nil, err
	}
	return l, out, errs, nil
}

func (l *listener) pipe(stream Stream) (*os.File, error) {
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	enlarge(from)
	l.pipes = append(l.pipes, from)
	l.readers.Go(func() { l.read(from, stream) })
	return to, nil
}

// read takes what comes until nobody holds the other end; when the job has ended, until nothing comes any more.
func (l *listener) read(from *os.File, stream Stream) {
	defer from.Close()
	for {
		buf := <-l.scribe.free
		if ended := l.ended.Load(); ended != 0 {
			now := time.Now()
			if now.Sub(time.Unix(0, ended)) > lastWords {
				l.scribe.free <- buf
				return
			}
			_ = from.SetReadDeadline(now.Add(quiet))
		}
		n, err := from.Read(buf[headroom : headroom+readSize])
		if n > 0 {
			l.scribe.work <- piece{stream: stream, buf: buf[:headroom+n]}
		} else {
			l.scribe.free <- buf
		}
		if err != nil {
			return
		}
	}
}

// finish is called when the job has ended, and returns when everything it wrote is read.
func (l *listener) finish() {
	now := time.Now()
	l.ended.Store(now.UnixNano())
	for _, pipe := range l.pipes {
		_ = pipe.SetReadDeadline(now.Add(quiet)) // of a read that waits already; it may be closed
	}
	l.readers.Wait()
}
