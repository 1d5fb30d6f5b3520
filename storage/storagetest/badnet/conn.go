package badnet

import (
	"context"
	"net"
	"net/http"
)

type connKey struct{}

// withConn lets handlers find the connection of a request.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// resetClient ends the connection of a request by a reset, and the request with it.
func resetClient(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*net.TCPConn); ok {
		reset(c)
	}
	panic(http.ErrAbortHandler)
}
