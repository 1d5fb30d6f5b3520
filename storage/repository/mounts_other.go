//go:build !linux

package repository

// replicateMounts returns nothing: only Linux says which mounts are ours. Elsewhere a mount inside the project needs a line in
// .replicateignore.
func replicateMounts() map[string]bool { return nil }
