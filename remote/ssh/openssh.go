package ssh

import (
	"context"
	"errors"
)

func needsOpenSSH(ctx context.Context, way []*config, o Options) bool { return false }

func dialOpenSSH(ctx context.Context, way []*config, o Options) (*Conn, error) {
	return nil, explain(way[len(way)-1].address, errors.ErrUnsupported)
}
