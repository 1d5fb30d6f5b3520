package recorder

import (
	"fmt"

	"github.com/replicate/replicate/storage/repository"
)

// maxBacklog is how many points are kept while they cannot be written: about 64 MiB with a few metrics each.
const maxBacklog = 200_000

// A backlog holds the points that could not be written yet.
type backlog struct {
	points  []repository.Point
	dropped int
	err     error // why
}

// lost is the error of an end that leaves points behind.
func (b *backlog) lost() error {
	if len(b.points) == 0 {
		return nil
	}
	return fmt.Errorf("%d points are lost: %w", len(b.points)+b.dropped, b.err)
}

// write appends what waited and then points to the stream. On an error all of them wait; the oldest are dropped if they are too many.
func (b *backlog) write(w *repository.Writer, points []repository.Point) error {
	if len(b.points) > 0 {
		points = append(b.points, points...)
	}
	if len(points) == 0 {
		return nil
	}
	err := w.Log(points...)
	if err == nil {
		*b = backlog{}
		return nil
	}
	if over := len(points) - maxBacklog; over > 0 {
		points = points[over:]
		b.dropped += over
	}
	b.points = append([]repository.Point(nil), points...)
	b.err = err
	if b.dropped > 0 {
		return fmt.Errorf("%d had to be dropped: %w", b.dropped, err)
	}
	return err
}
