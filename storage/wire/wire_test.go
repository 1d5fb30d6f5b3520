package wire_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/wire"
)

func TestBody(t *testing.T) {
	from := strings.NewReader("0123456789")
	from.Seek(5, io.SeekStart)
	sum := md5.New()
	body, err := wire.NewBody(from, 4, sum)
	if err != nil {
		t.Fatal(err)
	}
	if want := md5.Sum([]byte("0123")); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Errorf("sum %x, want %x", sum.Sum(nil), want)
	}
	for range 2 { // as often as somebody wants to send it
		if err := iotest.TestReader(body, []byte("0123")); err != nil {
			t.Error(err)
		}
		if end, err := body.Seek(0, io.SeekEnd); err != nil || end != 4 {
			t.Errorf("it ends at %d, %v", end, err)
		}
		body.Seek(0, io.SeekStart)
	}
	if _, err := body.Seek(5, io.SeekStart); err == nil {
		t.Error("it can be left")
	}
	if _, err := wire.NewBody(from, 11); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that is too short: %v", err)
	}
}

func TestMeter(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Date", "Tue, 24 Nov 2026 10:00:00 GMT")
		io.WriteString(w, "hello")
	}))
	defer server.Close()
	var meter wire.Meter
	ctx, date := wire.NoteDate(t.Context())
	for range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, server.URL, strings.NewReader("good morning"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := meter.Do(r, http.DefaultClient.Do)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	if got, want := meter.Traffic(), (storage.Traffic{Requests: 2, Sent: 24, Received: 10}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if !date.Equal(time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("date %v", date)
	}
}

func TestKinds(t *testing.T) {
	for status, want := range map[int]replicate.Kind{
		400: replicate.Internal, 401: replicate.Permission, 403: replicate.Permission, 404: replicate.NotFound, 408: replicate.Unavailable,
		409: replicate.Unavailable, 429: replicate.Unavailable, 500: replicate.Unavailable, 501: replicate.Internal, 503: replicate.Unavailable, 507: replicate.Full,
	} {
		if got := wire.StatusKind(status); got != want {
			t.Errorf("status %d is %s, want %s", status, got, want)
		}
	}
	for _, tt := range []struct {
		err  error
		want replicate.Kind
	}{
		{&net.DNSError{Err: "no such host", IsNotFound: true}, replicate.Unavailable},
		{&url.Error{Op: "Get", URL: "http://x", Err: errors.New("EOF")}, replicate.Unavailable},
		{fmt.Errorf("read: %w", syscall.ECONNRESET), replicate.Unavailable},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), replicate.Unavailable},
		{&url.Error{Op: "Get", URL: "http://x", Err: context.Canceled}, replicate.Internal},
		{errors.New("nonsense"), replicate.Internal},
	} {
		if got := wire.NetworkKind(tt.err); got != tt.want {
			t.Errorf("%v is %s, want %s", tt.err, got, tt.want)
		}
	}
}
