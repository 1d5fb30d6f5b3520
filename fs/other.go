//go:build !linux

package fs

import (
	"context"

	"github.com/replicate/replicate"
)

func errSystem() error {
	return replicate.Errorf(replicate.Unavailable, "mounting needs Linux").WithHint("replicate ls, show, cat and checkout work here")
}

// Mount needs Linux.
func Mount(context.Context, Options, []string, func(dir string)) error { return errSystem() }

// Unmount needs Linux.
func Unmount(context.Context, string, string) ([]Holder, error) { return nil, errSystem() }

// ForceUnmount needs Linux.
func ForceUnmount(context.Context, string, string) error { return errSystem() }

// Status lists nothing, as there is nothing.
func Status(string) ([]Mounted, error) { return nil, nil }

// Process needs Linux.
func Process(context.Context, string, func(context.Context, Options) (View, error)) error {
	return errSystem()
}
