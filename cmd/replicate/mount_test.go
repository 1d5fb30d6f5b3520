package main

import (
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

func TestMountScripts(t *testing.T) {
	require.Fuse(t)
	runScripts(t, "testdata/mount", nil)
}
