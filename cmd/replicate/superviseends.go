package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/code"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/pipe"
)

// superviseEnds are the other ends of what a client does over a connection to a container.
func superviseEnds(w *world) []*cli.Command {
	return []*cli.Command{
		{
			Name:   "store",
			Usage:  "serve a repository for reading",
			Action: func(c *cli.Context) error { return w.superviseStore(c) },
		},
		{
			Name:  "code",
			Usage: "receive a working directory",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "chunks", Usage: "`DIR` of what is kept for the next time"},
				&cli.StringFlag{Name: "target", Usage: "`DIR` that it becomes"},
				&cli.StringFlag{Name: "owner", Usage: "`UID:GID` whom it belongs to"},
			},
			Action: func(c *cli.Context) error { return w.superviseCode(c) },
		},
	}
}

func (w *world) superviseStore(c *cli.Context) error {
	if err := wantArgs(c, 1, 1, "a folder"); err != nil {
		return err
	}
	store, err := storage.Open(c.Context, "file://"+c.Args().First())
	if err != nil {
		return err
	}
	return pipe.Serve(c.Context, store, awake(w.stdin), w.stdout)
}

// storeIdle is how long nobody may ask a store before it ends: its input stays open when whoever asked is gone without a word.
const storeIdle = 2 * time.Minute

// awake ends the process when nothing was read for a while.
func awake(r io.Reader) io.Reader {
	return &awakeReader{r, time.AfterFunc(storeIdle, func() { os.Exit(0) })}
}

type awakeReader struct {
	io.Reader
	end *time.Timer
}

func (r *awakeReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.end.Reset(storeIdle)
	return n, err
}

func (w *world) superviseCode(c *cli.Context) error {
	var owner code.Owner
	if _, err := fmt.Sscanf(c.String("owner"), "%d:%d", &owner.UID, &owner.GID); err != nil {
		return replicate.Errorf(replicate.Usage, "owner %q is not UID:GID", c.String("owner"))
	}
	return code.Receive(c.Context, struct {
		io.Reader
		io.Writer
	}{w.stdin, w.stdout}, code.ReceiveOptions{Chunks: c.String("chunks"), Target: c.String("target"), Owner: &owner})
}

// verifyCode compares a working directory that came as an archive with the manifest beside it, once: from then on it is the job's.
func verifyCode(ctx context.Context, dir string) error {
	path := dir + code.ManifestSuffix
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	manifest, err := code.ReadManifest(f)
	if err == nil {
		err = code.Verify(ctx, dir, manifest)
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}
