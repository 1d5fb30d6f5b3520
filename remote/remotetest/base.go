package remotetest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// baseVersion is part of the name of what base.sh makes: a change of what is in it needs another.
const baseVersion = "base-1"

// baseOf returns the directory with what Docker has on its disk when it knows nothing but the base image. It is made once per machine: no image
// can be pulled, and making one takes a minute. A laboratory gets a copy, in which the files of the image are links.
func baseOf(caches string) (string, error) {
	if err := os.MkdirAll(caches, 0o700); err != nil {
		return "", err
	}
	base := filepath.Join(caches, baseVersion)
	lock, err := os.OpenFile(base+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(base); !errors.Is(err, os.ErrNotExist) {
		return base, err
	}
	script, err := scripts.ReadFile("base.sh")
	if err != nil {
		return "", err
	}
	build := base + ".new"
	defer os.RemoveAll(build)
	command := exec.Command("unshare", "--fork", "--kill-child", "--pid", "--mount", "bash", "-c", string(script), "base.sh", build, Image)
	if _, err := finish(command); err != nil {
		return "", err
	}
	return base, os.Rename(filepath.Join(build, "data"), base)
}
