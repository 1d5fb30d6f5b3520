package main

import (
	"slices"
	"testing"
)

func TestInLines(t *testing.T) {
	got := inLines([]string{"aaaa", "bbb", "a long name of its own", "c", "d"}, 14)
	if want := []string{"aaaa  bbb", "a long name of its own", "c  d"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := inLines(nil, 80); got != nil {
		t.Errorf("%q", got)
	}
}
