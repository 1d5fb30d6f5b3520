// Package recorder writes down what one training process does: it turns calls of init, log and commit into an experiment,
// its points and its commits.
//
// Serve speaks the line protocol with a client in any language; docs/protocol.md has the table and a transcript. Start and
// Join do the same for callers in Go. Beside that the package finds out what the client did not say: packages, git, the machine,
// the variables that matter; and it hides what looks like a secret before anything is stored.
//
// # Promises
//
//  1. An answer to init or commit means that everything is safe on disk. Points are in a file, one write after they were read.
//  2. A line of log is taken from the pipe at once, whatever else is going on; only 64 MiB of waiting lines stop that.
//  3. After init nothing of this package ends the client: what goes wrong is an answer, a warning or a note.
//  4. A client that goes away without a word is seen within a second, also when a child of it holds the pipe open.
//
// # Order
//
// One goroutine reads lines and does nothing else, one carries them out in order, one watches the client's process, and each session has one
// that beats and flushes and a few short-lived ones that look around. Answers come in the order of the requests.
//
// The package knows no pack, no tree and no record: package repository does. It reads neither the environment nor flags of its process:
// both come in as Options.
package recorder
