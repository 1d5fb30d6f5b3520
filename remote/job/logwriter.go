package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A logWriter adds frames to the log of a job. It is for one goroutine.
//
// A frame that cannot be written, as the disk is full, is lost and counted; the next one that can be has a Note before it that says so.
type logWriter struct {
	dir    string // with the segments
	limits logLimits
	now    func() time.Time
	echo   *echo // gets a copy of the beginning
	tidy   *tidier

	file  *os.File
	first int64  // of the open segment
	size  int64  // of its file, whole frames only
	dirty bool   // there may be half a frame behind size
	next  int64  // offset of the next frame; others read it in length
	lost  int64  // bytes that could not be written since the last Note about it
	end   *State // what an earlier supervisor wrote of it, nil if nothing

	length atomic.Int64
}

// openLogWriter opens the log of a job and goes on behind its last whole frame.
func openLogWriter(dir string, limits logLimits, now func() time.Time, out *echo) (*logWriter, error) {
	w := &logWriter{dir: filepath.Join(dir, logName), limits: limits, now: now, echo: out}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return nil, err
	}
	list, err := listSegments(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		if err := w.recover(dir, list[len(list)-1]); err != nil {
			return nil, fmt.Errorf("read the end of the log: %w", err)
		}
	}
	w.length.Store(w.next)
	w.tidy = startTidier(w.dir, limits, list)
	return w, nil
}

// recover reads the last segment, and opens it to add to it if it is not sealed. A torn last frame is cut off.
func (w *logWriter) recover(dir string, last segment) error {
	r := &logReader{dir: os.DirFS(dir), next: last.first, wait: func() error { return io.EOF }}
	defer r.Close()
	frames := NewFrameReader(r, last.first)
	w.first, w.next = last.first, last.first
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		w.next = f.End()
		if f.Stream == Notes {
			w.heed(f.Data)
		}
	}
	if !last.raw {
		return nil
	}
	w.size, w.dirty = r.position, true
	var err error
	w.file, err = os.OpenFile(filepath.Join(dir, last.path()), os.O_WRONLY, 0)
	return err
}

// heed looks in a note for the end of the job, after which no attempt began.
func (w *logWriter) heed(note []byte) {
	switch n, err := ParseNote(note); {
	case err != nil: // of a later version
	case n.End != nil:
		w.end = n.End
	case n.Attempt > 0:
		w.end = nil
	}
}

// headroom is what a buffer given to write has free before its payload; behind it one byte must be free.
const headroom = maxHeader

// write adds a frame. Its payload is buf[headroom:], of which write takes what is around it for header and newline.
func (w *logWriter) write(s Stream, buf []byte) {
	if w.lost > 0 {
		w.confess()
	}
	w.add(s, buf)
}

// note adds a Note.
func (w *logWriter) note(n Note) {
	text, err := json.Marshal(n)
	if err != nil {
		return // all of its fields can be encoded
	}
	w.write(Notes, append(make([]byte, headroom, headroom+len(text)+1), text...))
}

// confess says what was lost, if that can be written by now.
func (w *logWriter) confess() {
	lost := w.lost
	text, _ := json.Marshal(Note{Gap: lost})
	w.lost = 0
	if w.add(Notes, append(make([]byte, headroom, headroom+len(text)+1), text...)); w.lost > 0 {
		w.lost = lost // and not the bytes of the note
		w.next -= int64(len(text))
		w.length.Store(w.next)
	}
}

func (w *logWriter) add(s Stream, buf []byte) {
	payload := buf[headroom:]
	header := Frame{Offset: w.next, Time: w.now(), Stream: s, Data: payload}.appendHeader(make([]byte, 0, maxHeader))
	start := headroom - len(header)
	copy(buf[start:], header)
	text := append(buf[start:], '\n')
	if err := w.put(text); err != nil {
		w.lost += int64(len(payload))
	} else {
		w.echo.write(text)
	}
	w.next += int64(len(payload))
	w.length.Store(w.next)
}

// put appends a whole frame to the file, or nothing.
func (w *logWriter) put(frame []byte) error {
	if err := w.roll(); err != nil {
		return err
	}
	if w.dirty {
		if err := w.file.Truncate(w.size); err != nil {
			return err
		}
		w.dirty = false
	}
	if _, err := w.file.WriteAt(frame, w.size); err != nil {
		w.dirty = true
		return err
	}
	w.size += int64(len(frame))
	return nil
}

// roll begins a new segment when there is none or the last one is full.
func (w *logWriter) roll() error {
	if w.file != nil && w.next-w.first < w.limits.segment {
		return nil
	}
	file, err := os.OpenFile(filepath.Join(w.dir, segmentName(w.next)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if w.file != nil {
		w.file.Close()
		w.tidy.full(w.first)
	}
	w.file, w.first, w.size, w.dirty = file, w.next, 0, false
	return nil
}

// sync makes what was written durable. Where that cannot be done it is no less written.
func (w *logWriter) sync() {
	if w.file != nil {
		_ = w.file.Sync()
	}
}

// close makes everything durable.
func (w *logWriter) close() error {
	w.tidy.stop()
	if w.file == nil {
		return nil
	}
	return errors.Join(w.file.Sync(), w.file.Close())
}
