// Package remote runs jobs on other machines, and in Docker on this one, so that they outlive whoever started them.
//
// A Client opens Hosts. A Host is one connection to one engine: it prepares the environment, brings the code there, starts the supervisor of
// package job as process 1 of a container, follows what it prints, and fetches commits home. Everything about a run on a host is in its container and
// its volume, which have the id of its experiment as their name: whoever asks again finds it there. No answer from a host means that nothing is known,
// never that a run has failed.
//
// # The volume of a run
//
//	/replicate/code            the working directory
//	/replicate/code.manifest   what it must be, where it came as an archive
//	/replicate/storage         a repository of the run's own, when the project's is on a disk of whoever started it
//	/replicate/log …           what package job keeps
//
// The package knows how a run is started and watched, not what users type: command lines, terminals and the index are for cmd.
package remote

import (
	"context"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/image"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/remote/ssh"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

// A Client is this machine, from which runs are started and watched.
type Client struct {
	SSH      ssh.Options
	Recorder recorder.Options // of the experiments it begins
	User     string           // who asks, as it is recorded
	Name     string           // of this machine

	Binary func(arch string) (path string, err error) // our own program for Linux on amd64 or arm64
	Python fs.FS                                      // the Python package

	// Credentials returns what an uploader elsewhere needs for a storage: variables by name. Nothing for one that needs none.
	Credentials func(ctx context.Context, url string) (map[string]string, error)

	Supervisor []string // the command line of a supervisor on this machine
	Environ    []string // of this process

	Stdout, Stderr io.Writer // get what jobs print
	// Say tells a person what is going on, a line at a time. Warn tells what is wrong beside it.
	Say  func(format string, args ...any)
	Warn func(err error)
	// Progress shows how far something is, in bytes, until it is called with ""; nil shows nothing.
	Progress func(doing string, done, total int64)
	// Confirm asks a person; nil: there is nobody, and what would be asked is done.
	Confirm func(question string) (bool, error)
	// Size, Lasted, Ago and LeftOut word a number of bytes, a duration, a time and what was not sent, as other commands do.
	Size    func(n int64) string
	Lasted  func(time.Duration) string
	Ago     func(time.Time) string
	LeftOut func([]repository.LeftOut) string
	Now     func() time.Time
	// ExitWait is how long the end of a run waits for commits that are on their way to a bucket.
	ExitWait time.Duration

	// Memory is a file in which the client keeps what it would find out again the next time; "" for none.
	Memory      string
	remembering sync.Mutex // held while it is changed

	programs programs
}

// A Job is what a run is asked to do. What JSON has of it is in a note until it has begun: nothing that is secret, or that the process which goes on with it knows better.
type Job struct {
	Project     *project.Project  `json:"-"`
	Dir         string            `json:"-"` // where the command runs, if it runs in place
	Argv        []string          `json:"argv"`
	Command     []string          `json:"command"` // as it is recorded
	Target      Target            `json:"-"`
	Env         map[string]string `json:"-"` // values of variables, which are secrets
	Mounts      []replicate.Mount `json:"mounts,omitempty"`
	GPUs        string            `json:"gpus,omitempty"`     // "", "none", "all", a number, or UUIDs with commas
	ShmSize     int64             `json:"shm_size,omitempty"` // bytes; 0: half of the memory
	Timeout     time.Duration     `json:"timeout,omitempty"`
	Retries     int               `json:"retries,omitempty"`
	Ports       []uint16          `json:"ports,omitempty"`
	Commit      bool              `json:"commit,omitempty"`
	Environment image.Inputs      `json:"environment"`
	Detach      bool              `json:"-"`
}

// Exit codes of Run and Attach that are not the job's own.
const (
	ExitBroken  = job.ExitBroken // the environment, Docker or the supervisor failed: no job ran
	ExitUnknown = 255            // the connection failed: what became of the job is not known
)
