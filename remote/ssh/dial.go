package ssh

import (
	"context"
	"errors"
)

// Dial connects to a host. Errors are *replicate.Error and say what to do. The context is for dialling alone.
func Dial(ctx context.Context, a Address, o Options) (*Conn, error) {
	return nil, errors.ErrUnsupported
}
