package badnet

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

type connKey struct{}

// A conn is a connection that requests come through.
type conn struct {
	net.Conn
	dialled time.Time
	used    atomic.Bool // a request came
}

// withConn lets handlers find the connection of a request.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &conn{Conn: c, dialled: time.Now()})
}

func connOf(r *http.Request) *conn { return r.Context().Value(connKey{}).(*conn) }

// resetClient ends the connection of a request by a reset, and the request with it.
func resetClient(r *http.Request) {
	if c, ok := connOf(r).Conn.(*net.TCPConn); ok {
		reset(c)
	}
	panic(http.ErrAbortHandler)
}
