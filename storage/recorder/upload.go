package recorder

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/replicate/replicate/storage/repository"
)

// uploaderStarts is how long an uploader may take until others see that it is at work.
const uploaderStarts = time.Second

// upload sees to it that what waits is sent. It asks the storage for nothing.
func (s *Session) upload() { s.startUpload(uploaderStarts) }

// startUpload starts an uploader if none is at work, unless one was started within a time.
func (s *Session) startUpload(within time.Duration) {
	if s.o.Upload == nil {
		return
	}
	s.uploads.Lock()
	defer s.uploads.Unlock()
	if now := time.Now(); now.Sub(s.started) >= within && s.place.spool.Idle() {
		s.started = now
		s.o.Upload(s.place.project)
	}
}

// uploadSoon does so in the background.
func (s *Session) uploadSoon() {
	select {
	case s.ready <- struct{}{}:
	default: // it is being done, or nobody keeps this session: its end does
	}
}

// watchUpload warns when an uploader does not get on, and when more waits than the disk should hold.
func (s *Session) watchUpload() {
	status, running := s.place.spool.Status()
	if running && status.Obstacle != nil {
		s.o.Tell(Remark{Warning: "nothing can be sent: " + status.Obstacle.Text, Hint: cmp.Or(status.Obstacle.Hint, keptHint)})
	}
	if running && status.Warning != "" {
		s.o.Tell(Remark{Warning: status.Warning})
	}
	if s.free <= 0 {
		return
	}
	if waiting := s.place.spool.Waiting(); float64(waiting.Bytes) > repository.WarnShare*float64(s.free) {
		s.o.Tell(Remark{Warning: fmt.Sprintf("%d MB wait to be sent to %s, and the disk has %d MB free",
			waiting.Bytes>>20, s.place.store.URL(), s.place.spool.Free()>>20), Hint: keptHint})
	}
}

// keptHint says what happens to what cannot be sent.
const keptHint = "commits are kept on this machine and are sent later; replicate upload --status shows what waits"

// lookEvery is how often an end looks whether everything is sent.
const lookEvery = 50 * time.Millisecond

// Wait waits until everything is sent, but not longer than a limit, and says what is still on its way. progress is told the bytes that
// are left, now and then; it may be nil.
func (s *Session) Wait(ctx context.Context, limit time.Duration, progress func(left int64)) (left int64) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	told := time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		waiting := s.place.spool.Waiting()
		if waiting.Done() {
			return 0
		}
		select {
		case <-ctx.Done():
			s.sayOnItsWay(waiting)
			return max(waiting.Bytes, 1)
		case <-tick.C:
		}
		if now := time.Now(); progress != nil && now.Sub(told) > time.Second {
			told = now
			progress(waiting.Bytes)
		}
	}
}

// sayOnItsWay tells what an end leaves to the uploader.
func (s *Session) sayOnItsWay(w repository.Waiting) {
	what := fmt.Sprintf("%d commits", w.Commits)
	switch w.Commits {
	case 0:
		what = "the end of the experiment"
	case 1:
		what = "1 commit"
	}
	r := Remark{
		Note: fmt.Sprintf("%s (%s) on the way to %s", what, megabytes(w.Bytes), s.place.store.URL()),
		Hint: "replicate upload shows how it gets on",
	}
	if status, _ := s.place.spool.Status(); status.Obstacle != nil {
		r.Note += ": " + status.Obstacle.Text
	}
	s.o.Tell(r)
}

func megabytes(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
