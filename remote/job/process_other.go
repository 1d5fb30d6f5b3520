//go:build !linux

package job

import (
	"os"
	"syscall"
)

// A supervisor that is killed leaves the job alone here.
func dieWithParent(*syscall.SysProcAttr) {}

// Pipes have the size that they have.
func enlarge(*os.File) {}

// Threads have no priority of their own.
func standBack() {}

// Orphans go to process 1.
func adopt() {}
