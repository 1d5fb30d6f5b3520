package docker

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// fillTime is how long a client may take from creating the container that fills a volume to removing it, before others think that it
// has died: some calls, and on a volume in use reading it back.
const fillTime = time.Minute

// sendTime is how long sending a program may take before it counts as given up: 20 MB over a very bad line.
const sendTime = time.Hour

// Deliver makes sure that a program's volume is on the host: one round trip if it is.
//
// Otherwise the program is sent as an image, and a container that is never started fills the volume from it. The container's name is the
// lock. An image under the program's own reference says that the volume is whole: it gets that reference when the volume has been
// filled, while the container still holds it. So a volume that was being filled when the engine died is not taken for whole.
func (e *Engine) Deliver(ctx context.Context, p Program) error {
	for {
		marked, there, err := e.delivered(ctx, p)
		if err != nil || marked && there {
			return err
		}
		done, err := e.fill(ctx, p, marked, there)
		if err != nil || done {
			return err
		}
		if err := e.awaitFill(ctx, p); err != nil {
			return err
		}
	}
}

// RemoveProgram removes the volume of a program, and the image that says that it is whole. The kind of the error is Conflict while a
// container has it.
func (e *Engine) RemoveProgram(ctx context.Context, volume string) error {
	if err := e.RemoveVolume(ctx, volume); err != nil {
		return err
	}
	return e.RemoveImage(ctx, binImages+":"+strings.TrimPrefix(volume, binVolumes))
}

// Redeliver fills a program's volume anew, after ErrNoProgram. No container may have it: remove the one that could not start.
func (e *Engine) Redeliver(ctx context.Context, p Program) error {
	if err := e.RemoveProgram(ctx, p.Volume()); err != nil {
		return err
	}
	return e.Deliver(ctx, p)
}

// delivered asks at once whether the volume is marked as whole, and whether it is there.
func (e *Engine) delivered(ctx context.Context, p Program) (marked, there bool, err error) {
	asked := make(chan error, 1)
	go func() {
		_, err := e.Volume(ctx, p.Volume())
		asked <- err
	}()
	_, imageErr := e.Image(ctx, p.Image())
	volumeErr := <-asked
	return imageErr == nil, volumeErr == nil, errors.Join(gone(imageErr), gone(volumeErr))
}

// fill fills the volume, which is marked or there, but not both; done is false if another client has the lock.
func (e *Engine) fill(ctx context.Context, p Program, marked, there bool) (done bool, err error) {
	if there {
		err := e.RemoveVolume(ctx, p.Volume())
		if err != nil && replicate.KindOf(err) != replicate.Conflict {
			return false, err
		}
		there = err != nil // a job has it, and somebody removed the image
	}
	parcel := p.parcel()
	defer func() { err = errors.Join(err, e.RemoveImage(context.WithoutCancel(ctx), parcel)) }()
	if err := e.send(ctx, p, parcel); err != nil {
		return false, err
	}
	if marked {
		if err := e.RemoveImage(ctx, p.Image()); err != nil {
			return false, err
		}
	}
	return e.unpack(ctx, p, parcel, there)
}

// send brings the program to the host as an image, unless it is there.
func (e *Engine) send(ctx context.Context, p Program, parcel string) error {
	if err := e.Tag(ctx, p.Image(), parcel); replicate.KindOf(err) != replicate.NotFound {
		return err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(p.archive(writer)) }()
	defer reader.Close()
	return e.Import(ctx, parcel, reader, p.labels())
}

// unpack takes the lock, fills the volume by that, and marks it as whole. What is in a volume that was there is looked at first.
func (e *Engine) unpack(ctx context.Context, p Program, parcel string, there bool) (done bool, err error) {
	mount := p.Mount()
	mount.ReadOnly = false
	lock := Container{Name: p.Volume(), Image: parcel, Argv: []string{ProgramPath}, Labels: p.labels(), Volumes: []Mount{mount}, Network: "none"}
	if created, err := e.Create(ctx, lock); err != nil || !created {
		return false, err
	}
	defer func() { err = errors.Join(err, e.Remove(context.WithoutCancel(ctx), lock.Name)) }()
	if _, err := e.Image(ctx, p.Image()); replicate.KindOf(err) != replicate.NotFound {
		return err == nil, err // another client was faster
	}
	if there {
		if err := e.verify(ctx, p); err != nil {
			return false, err
		}
	}
	return true, e.Tag(ctx, parcel, p.Image())
}

// verify reads the volume back through the container that is the lock.
func (e *Engine) verify(ctx context.Context, p Program) error {
	content, err := e.GetArchive(ctx, p.Volume(), ProgramDir)
	if err != nil {
		return err
	}
	defer content.Close()
	hash, err := hashOf(content)
	if err != nil {
		return &replicate.Error{Op: "read volume", Path: p.Volume(), Kind: replicate.Unavailable, Err: err}
	}
	if hash != p.hash {
		return &replicate.Error{Op: "read volume", Path: p.Volume(), Kind: replicate.Corrupt, Err: errors.New("its files are not the program's"),
			Hint: "runs use it: stop them, and it is filled anew"}
	}
	return nil
}

// hashOf is the hash of the program in an archive of ProgramDir.
func hashOf(archive io.Reader) (string, error) {
	files := listing{}
	for reader := tar.NewReader(archive); ; {
		head, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files.hash(), nil
		} else if err != nil {
			return "", err
		}
		if head.Typeflag == tar.TypeDir {
			continue
		}
		if err := files.add(strings.TrimPrefix(head.Name, path.Base(ProgramDir)+"/"), reader); err != nil {
			return "", err
		}
	}
}

// awaitFill returns when the container that is the lock is gone. One that is older than fillTime is removed: its client has died.
func (e *Engine) awaitFill(ctx context.Context, p Program) error {
	for {
		lock, err := e.Inspect(ctx, p.Volume())
		if err != nil {
			return gone(err)
		}
		if e.Now().Sub(lock.Created) > fillTime {
			return e.Remove(ctx, p.Volume())
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
