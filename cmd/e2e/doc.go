// Package e2e tests the command and the Python package together, as people use them: real trainings, real processes that are killed,
// real mounts, real disks that run full, compared by diff, rsync and tar.
//
// It is tests only. It knows no package of ours but by what the command and Python print, except that it asks the repository's own check
// whether a storage is sound.
package e2e
