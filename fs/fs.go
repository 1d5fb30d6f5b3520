// Package fs serves a view of a repository as a file system and looks after the life of the mount.
//
// Three processes take part. The command (Mount) checks, starts the supervisor and waits for its word. The supervisor holds
// /dev/fuse, mounts, starts the server and then only waits: a server that dies is started again on the same descriptor, and
// whoever was reading goes on as if nothing had happened. The server (server_linux.go) answers the kernel from a View; it keeps
// nothing that it could not compute again, but for copies of large files, of which there is a table (copies_linux.go).
//
// What the kernel may keep, and for how long, is decided in one place (server_linux.go) from the Life that a view gives each node.
//
// The package knows no experiment and no SQL; fs/view does. It reads no environment and no flags.
//
// # Deadlocks
//
// The server never touches its own mount: no open, stat, walk, working directory there. A handler holds no lock while it
// reads content. Notifications are written by a goroutine of their own, never under a lock and never from a handler, since
// the kernel takes the directory's lock for them, which it may be holding for a request that waits for us.
package fs

import (
	"context"
	"fmt"
	"io"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs/view"
)

// A View is what a server serves. Errors of kind NotFound are missing names, view.ErrStale is a node that is gone, everything
// else is EIO and goes to the log. All methods may be called from several goroutines.
type View interface {
	// Lookup finds a name in a directory.
	Lookup(ctx context.Context, dir view.ID, name string) (view.ID, error)
	// Attr returns what stat says.
	Attr(ctx context.Context, id view.ID) (view.Attr, error)
	// List calls yield for the entries of a directory whose cookie is greater than the given one, in order of their cookies,
	// until it returns false. Cookies are at least FirstCookie and stay what they are.
	List(ctx context.Context, dir view.ID, cookie uint64, yield func(cookie uint64, e view.Entry) bool) error
	// Link returns where a symlink leads.
	Link(ctx context.Context, id view.ID) (string, error)
	// Open is called before Content. It may take its time; view.ErrStale makes the kernel look the name up again.
	Open(ctx context.Context, id view.ID) error
	// Content returns the bytes of a file. A growing file's may be longer each time.
	Content(ctx context.Context, id view.ID) (io.ReaderAt, error)
	// Life says what may be kept of a node.
	Life(id view.ID) view.Life
	// Size is how many bytes the repository holds, for statfs.
	Size() int64
	// Instance is another number once nodes no longer stand for what they did. Then every other method returns view.ErrStale, and only
	// another mount helps.
	Instance() int64

	// Refresh brings the view up to date and returns the names that changed.
	Refresh(ctx context.Context) ([]view.Change, error)
	// Wake returns a folder that changes whenever Refresh would find something, "" if there is none.
	Wake() string
	// Close gives back what the view holds.
	Close() error
}

// FirstCookie is the smallest cookie of an entry: "." and ".." come before.
const FirstCookie = 3

// Options say what to mount where. The supervisor and the server get them as JSON over a pipe.
type Options struct {
	Dir     string // the mount point
	Storage string // URL
	Commit  string // if set, Dir is this commit and nothing is live; a whole id

	IndexDir string // where the index is
	CacheDir string // where decoded content is kept; made if missing
	StateDir string // where mounts are known by; made if missing

	CacheSize int64 // bytes that what was fetched from afar may take in CacheDir; 0: as repository.NewCache says

	Metrics []replicate.Metric // goals of the reader's replicate.yaml
	Primary bool               // whether the first of them is the primary metric

	Self         []string // command line that runs Process; a role is appended
	Foreground   bool     // the calling process is the supervisor, and Mount returns when the mount is gone
	NotifySocket string   // told READY=1, if set
}

// A Holder is a process that keeps a mount busy.
type Holder struct {
	PID     int
	Command string
	What    string // working directory, root directory, open file, mapping
}

func (h Holder) String() string { return fmt.Sprintf("%s (pid %d, %s)", h.Command, h.PID, h.What) }

// How a mount is.
const (
	StateOK     = "ok"
	StateDead   = "dead"   // its processes are gone
	StateSilent = "silent" // no answer within answerWait
)

// A Mounted is one mount of replicate on this machine.
type Mounted struct {
	Dir     string
	Storage string
	Commit  string
	State   string // StateOK, StateDead or StateSilent
	PID     int    // of the supervisor, 0 if unknown
	Log     string // path
}
