package job

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/replicate/replicate/storage/repository"
)

// A tidier compresses the full segments of a log and drops what is too much, beside the writer, who never waits for it. It stands back
// for the job: while that floods the log, segments are dropped as they are.
type tidier struct {
	dir    string
	limits logLimits
	filled chan int64    // first offsets of full segments
	ended  chan struct{} // closed when it has ended
	quit   chan struct{}
}

// maxUntidy is how many segments may wait: more than are kept.
const maxUntidy = 1024

func startTidier(dir string, limits logLimits, list []segment) *tidier {
	t := &tidier{dir: dir, limits: limits, filled: make(chan int64, maxUntidy), ended: make(chan struct{}), quit: make(chan struct{})}
	go t.run(slices.Clone(list))
	return t
}

// full says that nothing is added to a segment any more.
func (t *tidier) full(first int64) {
	select {
	case t.filled <- first:
	default: // it stays as it is until the supervisor is started again
	}
}

// stop ends it. The segment it is at stays as it was.
func (t *tidier) stop() {
	close(t.quit)
	<-t.ended
}

// run keeps the list of segments, of which the last is not full if it came from an earlier supervisor.
func (t *tidier) run(list []segment) {
	defer close(t.ended)
	standBack()
	var earlier []segment
	if len(list) > 0 {
		earlier = list[:len(list)-1]
	}
	for _, s := range earlier {
		if s.raw {
			t.seal(s.first)
		}
	}
	for {
		select {
		case <-t.quit:
			return
		case first := <-t.filled:
			if n := len(list); n == 0 || list[n-1].first < first {
				list = append(list, segment{first: first, raw: true})
			}
			list = t.drop(list)
			if len(t.filled) == 0 { // else it is behind, and what waits may be dropped
				t.seal(first)
			}
		}
	}
}

// drop removes segments from the middle until what is left is not too much.
func (t *tidier) drop(list []segment) []segment {
	first, last := int(t.limits.first/t.limits.segment), int(t.limits.last/t.limits.segment)
	for i := first; len(list) > first+last; {
		name := filepath.Join(t.dir, segmentName(list[i].first))
		for _, suffix := range []string{"", sealedSuffix, olderSuffix} { // one of them is there
			os.Remove(name + suffix)
		}
		list = slices.Delete(list, i, i+1)
	}
	return list
}

// errQuit ends the work on a segment.
var errQuit = errors.New("the job has ended")

// seal compresses a segment. If that cannot be done it stays as it is.
func (t *tidier) seal(first int64) {
	name := filepath.Join(t.dir, segmentName(first))
	if err := t.compress(name); err == nil {
		os.Remove(name)
	}
}

func (t *tidier) compress(name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	part := name + sealedSuffix + ".part"
	defer os.Remove(part) // gone if it was renamed
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	packed, err := repository.Compress(out)
	if err != nil {
		return err
	}
	_, err = io.Copy(packed, readerFunc(func(p []byte) (int, error) {
		select {
		case <-t.quit:
			return 0, errQuit
		default:
			return in.Read(p)
		}
	}))
	if err := errors.Join(err, packed.Close(), out.Sync()); err != nil {
		return err
	}
	return os.Rename(part, name+sealedSuffix)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
