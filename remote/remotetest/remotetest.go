// Package remotetest is a laboratory for tests of package remote: hosts with sshd and Docker on one Linux machine, and bad links to them.
//
// It needs root and the programs that make test installs; a test on a machine without them ends by require.Missing. It knows none of
// the packages it is used to test.
package remotetest
