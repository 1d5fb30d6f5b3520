package job

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// leaseEvery is how often a job that waits for GPUs looks whether they are free.
const leaseEvery = 500 * time.Millisecond

// leases are the GPUs of a machine, of which a job takes some for itself: by a lock on a file for each, gpu-<uuid>, that the kernel frees when the
// supervisor dies. All jobs of a machine share the folder.
//
// A job takes all it wants at once or nothing, in the order of UUIDs: so two that want the same never wait for each other. One that wants
// many may wait long behind others that want few.
type leases struct {
	files map[string]*os.File // by UUID, open, locked or not
	held  []string
}

// A holder is what a lease's file says of who has it.
type holder struct {
	Experiment replicate.ID `json:"experiment,omitempty"`
	User       string       `json:"user,omitempty"`
}

func (h holder) String() string {
	name := h.Experiment.Short()
	switch {
	case name == "" && h.User == "":
		return "another job"
	case h.User == "":
		return name
	}
	return strings.TrimSpace(name + " (" + h.User + ")")
}

// openLeases opens the files of the leases of devices, as a user who may make them. Everybody may lock them.
func openLeases(dir string, devices []string) (*leases, error) {
	l := &leases{files: map[string]*os.File{}}
	if len(devices) == 0 {
		return l, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		_ = os.Chmod(dir, 0o1777) // whatever the umask; refused to others than its maker
	}
	for _, uuid := range devices {
		if uuid == "" || strings.ContainsAny(uuid, "/\x00") {
			l.close()
			return nil, replicate.Errorf(replicate.Usage, "%q is no UUID of a GPU", uuid)
		}
		path := filepath.Join(dir, "gpu-"+uuid)
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			l.close()
			return nil, err
		}
		_ = file.Chmod(0o666)
		l.files[uuid] = file
	}
	return l, nil
}

// close frees everything.
func (l *leases) close() {
	for _, file := range l.files {
		file.Close()
	}
	l.files, l.held = nil, nil
}

// acquire takes what a job wants and returns the GPUs it shall see: nil for whatever there is. While it waits it tells who is in the way.
func (l *leases) acquire(ctx context.Context, spec Spec, tell func(reason string)) (*[]string, error) {
	if spec.GPUs == "none" {
		return &[]string{}, nil
	}
	if spec.GPUs == "" {
		return l.unleased(spec.Devices), nil
	}
	wanted, n, err := choice(spec.GPUs, spec.Devices)
	if err != nil {
		return nil, err
	}
	for {
		if l.take(wanted, n) {
			l.sign(holder{spec.Experiment, spec.User})
			return &l.held, nil
		}
		tell(l.obstacles(wanted, n))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(leaseEvery):
		}
	}
}

// choice returns the GPUs that come into question, in order, and how many of them are wanted.
func choice(gpus string, devices []string) (wanted []string, n int, err error) {
	devices = slices.Compact(slices.Sorted(slices.Values(devices)))
	count, notNumber := strconv.Atoi(gpus)
	switch {
	case gpus == "all":
		count = max(1, len(devices))
	case notNumber != nil:
		wanted = slices.Compact(slices.Sorted(strings.SplitSeq(gpus, ",")))
		for _, uuid := range wanted {
			if !slices.Contains(devices, uuid) {
				return nil, 0, replicate.Errorf(replicate.Usage, "this machine has no GPU %q", uuid)
			}
		}
		return wanted, len(wanted), nil
	case count < 1:
		return nil, 0, replicate.Errorf(replicate.Usage, "%q is no number of GPUs", gpus)
	}
	if count > len(devices) {
		return nil, 0, replicate.Errorf(replicate.Usage, "%d GPUs are asked for, and this machine has %d", count, len(devices))
	}
	return devices, count, nil
}

// take locks n of the wanted, or nothing.
func (l *leases) take(wanted []string, n int) bool {
	for _, uuid := range wanted {
		if len(l.held) == n {
			break
		}
		if l.lock(uuid) {
			l.held = append(l.held, uuid)
		}
	}
	if len(l.held) == n {
		return true
	}
	for _, uuid := range l.held {
		l.unlock(uuid)
	}
	l.held = nil
	return false
}

func (l *leases) lock(uuid string) bool {
	return unix.Flock(int(l.files[uuid].Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (l *leases) unlock(uuid string) { _ = unix.Flock(int(l.files[uuid].Fd()), unix.LOCK_UN) }

// sign writes who holds the leases into their files, for those who wait.
func (l *leases) sign(h holder) {
	text, _ := json.Marshal(h)
	for _, uuid := range l.held {
		_ = l.files[uuid].Truncate(0)
		_, _ = l.files[uuid].WriteAt(text, 0)
	}
}

// unleased returns the GPUs that nobody has leased, nil if that is all of them.
func (l *leases) unleased(devices []string) *[]string {
	free := []string{}
	for _, uuid := range devices {
		if l.lock(uuid) {
			l.unlock(uuid)
			free = append(free, uuid)
		}
	}
	if len(free) == len(devices) {
		return nil
	}
	return &free
}

// obstacles says who holds what is wanted.
func (l *leases) obstacles(wanted []string, n int) string {
	var by []string
	for _, uuid := range wanted {
		if l.lock(uuid) {
			l.unlock(uuid)
			continue
		}
		var h holder
		text := make([]byte, 4<<10)
		size, _ := l.files[uuid].ReadAt(text, 0)
		_ = json.Unmarshal(text[:size], &h) // half of it: somebody
		by = append(by, fmt.Sprintf("%s is held by %s", uuid, h))
	}
	what := fmt.Sprintf("%d GPUs", n)
	if n == 1 {
		what = "1 GPU"
	}
	return what + ": " + strings.Join(by, ", ")
}
