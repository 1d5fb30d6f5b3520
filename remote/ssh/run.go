package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// An ExitError is how a script or command ended that did not succeed.
type ExitError struct {
	Status int    // 128+n for signal n
	Stderr string // its end
}

func (e *ExitError) Error() string {
	if e.Stderr != "" {
		return e.Stderr
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Run runs a script by /bin/sh on the host and returns its stdout, whatever the login shell of the user is and whatever that prints.
// The script's stdin is empty. If it does not end with status 0 the error has an *ExitError, and what was printed is returned too.
func (c *Conn) Run(ctx context.Context, script string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// Stdio runs a command on the host, found as /bin/sh finds it, and returns its stdin and stdout as a connection with CloseWrite.
// The context is for starting it alone; closing the connection ends it. A command that is not there is a replicate.NotFound.
// Once it ended badly, reads give an *ExitError in place of io.EOF.
func (c *Conn) Stdio(ctx context.Context, argv ...string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
