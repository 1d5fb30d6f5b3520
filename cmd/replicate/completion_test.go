package main

import (
	"os/exec"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestCompletionScripts lets the shells themselves complete.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range shells {
		if _, err := exec.LookPath(shell); err != nil {
			require.Missing(t, shell)
		}
	}
	runScripts(t, "testdata/completion", nil)
}
