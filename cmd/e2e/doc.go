// Package e2e tests the command and the Python package together, as people use them: real trainings, real processes that are killed,
// real mounts, real disks that run full, a disk that loses its power, compared by diff, rsync and tar.
//
// It is tests only. It knows no package of ours but the client of the recorder's protocol: only what the command and Python say, and what other
// tools find.
package e2e
