package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

const (
	// lastLines is how much of what a failed step printed is shown.
	lastLines = 20
	// maxLog bounds what is fetched to show that.
	maxLog = 64 << 20
)

// A StepError is a step that failed. Its container is kept, with everything it printed.
type StepError struct {
	Step      string   // "2/3 install: apt-get install -y nothing"
	Code      int      // exit code
	Last      []string // the last lines it printed
	Container string
}

// Error is a line, and the last lines below it.
func (e *StepError) Error() string {
	text := fmt.Sprintf("exit code %d", e.Code)
	if len(e.Last) > 0 {
		text += "\n  " + strings.Join(e.Last, "\n  ")
	}
	return text
}

// failed is the error of a step that ended with a code.
func (l *layer) failed(ctx context.Context, code int) error {
	step := fmt.Sprintf("%d/%d %s", l.number, len(l.site.layers), l.Name)
	text, err := l.printed(ctx)
	if code == job.ExitBroken && text == "" {
		text, err = l.Engine.Tail(ctx, l.name(), lastLines)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if text == "" {
		lines = nil
	}
	cause := &StepError{Step: step, Code: code, Last: lines[max(0, len(lines)-lastLines):], Container: l.name()}
	e := &replicate.Error{Op: "build", Path: step, Kind: replicate.Internal, Err: errors.Join(cause, err)}
	if err == nil {
		e.Err = cause
	}
	e.Hint = fmt.Sprintf("all it printed, on the host: docker cp %s:%s/log - | tar -xO", l.name(), docker.RunDir)
	if strings.Contains(text, "No space left on device") || strings.Contains(text, "Disk quota exceeded") {
		e.Kind = replicate.Full
		e.Hint = "the host's disk is full: replicate prune removes what is not needed any more"
	}
	return e
}

// printed returns the end of what the step printed, both streams together.
func (l *layer) printed(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "replicate-build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	archive, err := l.Engine.GetArchive(ctx, l.name(), docker.RunDir+"/log")
	if err != nil {
		if replicate.KindOf(err) == replicate.NotFound {
			err = nil
		}
		return "", err
	}
	defer archive.Close()
	if err := os.Mkdir(dir+"/log", 0o700); err != nil {
		return "", err
	}
	if err := unpack(archive, dir+"/log"); err != nil {
		return "", err
	}
	return readLog(os.DirFS(dir))
}

// unpack writes the regular files of an archive of one directory into dir. The archive comes from a container, whose programs may have made anything of it.
func unpack(archive io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	reader := tar.NewReader(io.LimitReader(archive, maxLog))
	for {
		head, err := reader.Next()
		if err != nil { // the end, or that of what is fetched
			return nil
		}
		if head.Typeflag != tar.TypeReg {
			continue
		}
		f, err := root.OpenFile(path.Base(head.Name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, copyErr := io.Copy(f, reader)
		if err := f.Close(); err != nil {
			return err
		}
		if copyErr != nil {
			return nil
		}
	}
}

// readLog returns the end of a log.
func readLog(dir fs.FS) (string, error) {
	log, err := job.OpenLog(dir, 0)
	if err != nil {
		return "", err
	}
	defer log.Close()
	const keep = 64 << 10
	var text []byte
	for frames := job.NewFrameReader(log, 0); ; {
		f, err := frames.Next()
		if err != nil {
			return string(text[max(0, len(text)-keep):]), nil
		}
		if f.Stream == job.Notes {
			continue
		}
		if text = append(text, f.Data...); len(text) > 4*keep {
			text = append(text[:0], text[len(text)-keep:]...)
		}
	}
}
