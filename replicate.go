// Package replicate holds the nouns of replicate: what an experiment, a commit, a parameter and a metric are.
//
// Five nouns are used everywhere with these meanings and no synonyms:
//
//   - repository: everything stored under one storage URL.
//   - experiment: one run of a training script: parameters, command, user, host, code state, environment, status.
//   - commit: a snapshot of the files plus metrics at a step; it belongs to one experiment and never changes.
//   - storage: where a repository's bytes are (a disk, Google Cloud Storage, Amazon S3).
//   - index: the local, disposable, always rebuildable picture of a repository that answers queries.
//
// The package does no I/O, reads no environment and imports nothing of this module. Every other package imports it.
package replicate

import (
	"math"
	"time"
)

// Version is the version of this module, as `replicate version` prints it and the recorder answers `hello`.
const Version = "0.1.0"

// An Experiment is one run of a training script, as far as it is known.
// Fields learnt after the start are zero until then; a zero field means "not known", never "empty".
type Experiment struct {
	ID        ID
	Created   time.Time // by the clock of the machine that ran it
	Name      string
	User      string
	Host      string
	Directory string // the project root on that machine
	Command   []string
	Params    Values  // nested as given; columns and queries join the keys with "."
	Metric    *Metric // the primary metric, nil if the experiment declared none
	Parent    ID      // the commit it started from, "" if unknown

	Status   Status // as stored; readers turn "" and running into Running or Lost by the heartbeat's age
	Ended    time.Time
	ExitCode *int
	Failure  *Failure
	Tags     []string // sorted
	Note     string

	Git         *Git
	Python      *Python
	Machine     *Machine
	Run         *Run
	Environment Values // captured variables, masked
}

// A Commit is a snapshot of the files plus metrics at a step. It belongs to one experiment and never changes.
type Commit struct {
	ID         ID
	Experiment ID
	Parent     ID    // the commit before it in its experiment, "" for the first
	Seq        int64 // the parent's + 1; from 0. Two writers of one experiment can make two commits of one number
	Time       time.Time
	Step       Step
	Metrics    Values // flat, keys joined with "/"
	Message    string
	Files      int64 // regular files and symlinks in the tree
	Bytes      int64 // sum of the sizes of its regular files
	Added      int64 // bytes this commit added to the storage
}

// A Step is where in the training a commit or a point was made: an epoch, a batch, whatever the script counts.
// Steps may repeat and decrease.
type Step int64

// NoStep stands for a step that was not given. Only repositories of 2020 and 2021 have commits without one.
const NoStep Step = math.MinInt64

// A Status says how far an experiment has come. Building, Waiting and Detached belong to runs on other machines.
type Status string

// The statuses. Those without a remark say what they are.
const (
	Building    Status = "building"
	Waiting     Status = "waiting"
	Running     Status = "running"
	Detached    Status = "detached"
	Finished    Status = "finished"
	Failed      Status = "failed"      // uncaught exception, or exit code not 0 where it is known
	Interrupted Status = "interrupted" // KeyboardInterrupt or SIGINT
	Terminated  Status = "terminated"  // SIGTERM
	Crashed     Status = "crashed"     // the process went away without a word
	Lost        Status = "lost"        // no heartbeat for LostAfter; concluded by readers, never stored
)

// Statuses lists every status in the order of a life.
var Statuses = []Status{Building, Waiting, Running, Detached, Finished, Failed, Interrupted, Terminated, Crashed, Lost}

// Final reports whether s is an end: nothing but a resume changes it.
func (s Status) Final() bool {
	switch s {
	case Finished, Failed, Interrupted, Terminated, Crashed:
		return true
	}
	return false
}

const (
	// HeartbeatEvery is how often a recorder says that its experiment is alive.
	HeartbeatEvery = 30 * time.Second
	// LostAfter is the age of a heartbeat from which an experiment without an end counts as lost.
	// Four heartbeats: one late or lost write must not raise an alarm.
	LostAfter = 2 * time.Minute
)

// A Goal says which values of a metric are better.
type Goal string

// The goals, as they are stored.
const (
	Minimize Goal = "minimize"
	Maximize Goal = "maximize"
)

// A Metric is a metric that has a goal. Its best value decides the best commit.
type Metric struct {
	Name string
	Goal Goal
}

// A Point is one value of a metric at a place of its experiment.
type Point struct {
	Value  Value
	Step   Step
	N      int64 // its position in the stream of its writer: the order of recording
	Commit ID    // "" for a point of log()
}

// A Summary is what is kept of one metric of one experiment. All four are idempotent under repetition; there are no
// counts and no sums, as duplicates are normal. Min and Max are nil for a metric that never was a number.
type Summary struct {
	First, Last *Point // by (step, order of recording); may be NaN or no number
	Min, Max    *Point // by value, ties to the earliest; never NaN
}

// Best returns the point that goal calls best, or nil.
func (s Summary) Best(goal Goal) *Point {
	switch goal {
	case Minimize:
		return s.Min
	case Maximize:
		return s.Max
	}
	return nil
}

// A Failure is why an experiment ended as Failed.
type Failure struct {
	Type      string `json:"type,omitempty"`
	Message   string `json:"message,omitempty"`
	Traceback string `json:"traceback,omitempty"` // the last 8 kB
}

// Git is the state of the git work tree an experiment started in.
type Git struct {
	Commit string `json:"commit,omitempty"`
	Branch string `json:"branch,omitempty"`
	Remote string `json:"remote,omitempty"` // without credentials
	Dirty  bool   `json:"dirty"`
	Files  int    `json:"files,omitempty"` // changed files
	Patch  string `json:"patch,omitempty"` // diff against Commit, at most 1 MiB
}

// Python is the interpreter of an experiment and the packages it could import.
type Python struct {
	Version    string            `json:"version,omitempty"`
	Executable string            `json:"executable,omitempty"`
	Packages   map[string]string `json:"packages,omitempty"` // name to version; editable installs carry "@ <commit>"
	Imported   []string          `json:"imported,omitempty"` // names of Packages that were imported
}

// Run is how `replicate run` started an experiment.
type Run struct {
	Target string `json:"target,omitempty"` // the machine as given with -H, "local" for Docker here, "" for no Docker
	Image  string `json:"image,omitempty"`  // of the container
	Detail string `json:"detail,omitempty"` // what it waits for, or why it ended, where the status alone does not say

	Installed *Installed `json:"installed,omitempty"` // of an image that replicate run built
}

// Installed is what an image was built of: enough to build another like it.
type Installed struct {
	Base     string   `json:"base"`            // digest of the image it was built on
	Image    string   `json:"image,omitempty"` // a name of that
	Platform string   `json:"platform"`
	Chain    []string `json:"chain"` // keys of the layers, from the base up
	Steps    []string `json:"steps"` // their names
	Pip      []string `json:"pip,omitempty"`
	Apt      []string `json:"apt,omitempty"`
}

// Machine is the computer an experiment ran on.
type Machine struct {
	OS     string   `json:"os,omitempty"`
	Kernel string   `json:"kernel,omitempty"`
	CPU    string   `json:"cpu,omitempty"`
	Cores  int      `json:"cores,omitempty"`  // usable: affinity and cgroup limits count
	Memory int64    `json:"memory,omitempty"` // bytes
	GPUs   []string `json:"gpus,omitempty"`
	Driver string   `json:"driver,omitempty"`
}
