package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	// releaseTries and releasePause: a shell that just left, or an indexer, needs a moment to close its files.
	releaseTries = 5
	releasePause = 200 * time.Millisecond

	// endWait is how long the end of the server is waited for. A clone of the mount namespace keeps it alive although the
	// mount is gone from ours, so this is a courtesy.
	endWait = 3 * time.Second
)

// Unmount takes the mount at dir away. If processes use it, it is detached all the same and they are returned: they keep what they
// have, and the server ends with the last of them. A dead mount is cleared.
func Unmount(ctx context.Context, stateDir, dir string) ([]Holder, error) {
	dir = resolve(dir)
	m, err := ourMount(dir)
	if err != nil {
		return nil, err
	}
	busy, err := release(ctx, m)
	if err != nil || len(busy) > 0 {
		return busy, err
	}
	return nil, stateOf(stateDir, dir).waitEnd(ctx, endWait)
}

// ForceUnmount takes the mount at dir away whoever uses it: their next access fails.
func ForceUnmount(ctx context.Context, stateDir, dir string) error {
	dir = resolve(dir)
	m, err := ourMount(dir)
	if err != nil {
		return err
	}
	st := stateOf(stateDir, dir)
	if err := abort(m); err != nil {
		st.kill()
	}
	if err := umount(m.dir, unix.MNT_DETACH); err != nil {
		if _, still, _ := mountAt(dir); still {
			return &replicate.Error{Op: "unmount", Path: dir, Kind: replicate.Unavailable, Err: err}
		}
	}
	return st.waitEnd(ctx, endWait)
}

func ourMount(dir string) (mountEntry, error) {
	m, ok, err := mountAt(dir)
	switch {
	case err != nil:
		return m, err
	case !ok:
		return m, &replicate.Error{Op: "unmount", Path: dir, Kind: replicate.NotFound, Err: errors.New("nothing is mounted there"),
			Hint: "replicate mount --status lists the mounts"}
	case !m.ours():
		return m, &replicate.Error{Op: "unmount", Path: dir, Kind: replicate.Usage,
			Err: fmt.Errorf("what is mounted there is %s, not replicate", m.fs), Hint: "umount " + dir}
	}
	return m, nil
}

// release unmounts, lazily if it must, and returns who kept it busy.
func release(ctx context.Context, m mountEntry) ([]Holder, error) {
	if dead(m.dir) {
		return nil, detach(m)
	}
	for range releaseTries {
		if umount(m.dir, 0) == nil {
			return nil, nil
		}
		if _, still, _ := mountAt(m.dir); !still {
			return nil, nil // the server's own end, or somebody else
		}
		pause(ctx, releasePause)
	}
	busy := holders(m)
	return busy, detach(m)
}

func detach(m mountEntry) error {
	if err := umount(m.dir, unix.MNT_DETACH); err != nil {
		return &replicate.Error{Op: "unmount", Path: m.dir, Kind: replicate.Unavailable, Err: err}
	}
	return nil
}

// umount is one attempt, by the helper if we are not root.
func umount(dir string, flags int) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, flags|unix.UMOUNT_NOFOLLOW)
	}
	helper, err := findHelper()
	if err != nil {
		return err
	}
	arg := "-u"
	if flags&unix.MNT_DETACH != 0 {
		arg = "-uz"
	}
	var stderr bytes.Buffer
	cmd := exec.Command(helper, arg, "--", dir)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return errors.New(strings.TrimPrefix(strings.TrimSpace(stderr.String()), "fusermount3: "))
	}
	return nil
}

// abort breaks the connection of a mount: every request that waits fails at once.
func abort(m mountEntry) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", m.minor), []byte("1"), 0)
}

// dead reports whether the server of the mount at dir is gone for good. A mount that does not answer is not dead.
func dead(dir string) bool { return answer(dir) == StateDead }

// clearDead takes away every dead mount of ours at dir: mounting over one would hide the corpse.
func clearDead(dir string) error {
	for {
		m, ok, err := mountAt(dir)
		if err != nil || !ok || !m.ours() || !dead(dir) {
			return err
		}
		if err := detach(m); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
