package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/replicate/replicate"
)

// StatusKind returns the kind of an HTTP status that is no success, as far as the status alone tells.
func StatusKind(status int) replicate.Kind {
	switch status {
	case http.StatusNotFound:
		return replicate.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return replicate.Permission
	case http.StatusInsufficientStorage:
		return replicate.Full
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusConflict:
		return replicate.Unavailable
	}
	if status >= 500 && status != http.StatusNotImplemented {
		return replicate.Unavailable
	}
	return replicate.Internal
}

// NetworkKind returns Unavailable for errors of a network, which another attempt may not meet, and the kind of err else. What was cancelled
// by the caller is no such error.
func NetworkKind(err error) replicate.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return replicate.KindOf(err)
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return replicate.Unavailable
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return replicate.Unavailable
	}
	for _, broken := range []error{io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED} {
		if errors.Is(err, broken) {
			return replicate.Unavailable
		}
	}
	return replicate.KindOf(err)
}

// Cause strips the words that say how a request was made from an error of a network: who reads it knows what was asked of whom.
func Cause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
