package job

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate"
)

// WritePatience is how long a reader of the log may leave it unread. Docker needs its streams for other things; a reader that comes back
// asks again, at its offset.
const WritePatience = 5 * time.Second

// CopyWhileRead copies a log to a reader, and gives up when a write takes longer than patience: that write is left behind, and the
// process should end.
func CopyWhileRead(to io.Writer, log io.Reader, patience time.Duration) error {
	var since atomic.Int64 // when the write that waits began, in ns; 0 if none waits
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(writerFunc(func(p []byte) (int, error) {
			since.Store(time.Now().UnixNano())
			defer since.Store(0)
			return to.Write(p)
		}), log, make([]byte, copied))
		done <- err
	}()
	tick := time.NewTicker(patience / 4)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case now := <-tick.C:
			if began := since.Load(); began != 0 && now.UnixNano()-began > int64(patience) {
				return replicate.Errorf(replicate.Unavailable, "nobody has read the log for %s", patience)
			}
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
