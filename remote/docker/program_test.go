package docker

import (
	"os"
	"slices"
	"testing"
	"testing/fstest"
)

// sizes are those of the pieces that were written.
type sizes []int

func (s *sizes) Write(p []byte) (int, error) {
	*s = append(*s, len(p))
	return len(p), nil
}

// TestProgramIsSentInLargePieces: every piece is a packet.
func TestProgramIsSentInLargePieces(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewProgram(self, fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	var pieces sizes
	if err := p.archive(&pieces); err != nil {
		t.Fatal(err)
	}
	if n := len(pieces); n < 2 || slices.Min(pieces[:n-1]) < archivePiece {
		t.Errorf("%d pieces, of which one has %d bytes", n, slices.Min(pieces))
	}
}
