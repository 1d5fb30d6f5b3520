package gcs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	gcs "cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"github.com/replicate/replicate/storage/wire"
)

// emulated is the project of an emulator.
const emulated = "test"

// A client makes the library's client when it is needed first.
type client struct {
	transport transport

	mu  sync.Mutex // guards sdk
	sdk *gcs.Client
}

func (c *client) get(ctx context.Context) (*gcs.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock() // making it asks nobody
	if c.sdk != nil {
		return c.sdk, nil
	}
	sdk, err := gcs.NewClient(context.WithoutCancel(ctx), gcs.WithJSONReads(),
		option.WithHTTPClient(&http.Client{Transport: &c.transport}),
		option.WithoutAuthentication()) // the transport does it
	if err != nil {
		return nil, err
	}
	sdk.SetRetry(gcs.WithPolicy(gcs.RetryNever)) // storage.Retry does it for every store
	c.sdk = sdk
	return sdk, nil
}

// A transport makes requests: with credentials, which are looked for when they are needed first, if they go over https, else without.
type transport struct {
	meter wire.Meter
	once  sync.Once
	plain *http.Transport

	mu          sync.Mutex // guards what follows
	credentials *auth.Credentials
	signed      http.RoundTripper
	sawPlain    bool
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	next, err := t.next(r)
	if err != nil {
		return nil, err
	}
	answer, err := t.meter.Do(r, next.RoundTrip)
	if _, refused := errors.AsType[*auth.Error](err); refused || err == nil && answer.StatusCode == http.StatusUnauthorized {
		t.forget()
	}
	return answer, err
}

// forget makes the next request look for credentials again: somebody may have signed in.
func (t *transport) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.signed, t.credentials = nil, nil
}

func (t *transport) next(r *http.Request) (http.RoundTripper, error) {
	t.once.Do(func() { t.plain = newTransport() })
	if r.URL.Scheme != "https" {
		t.mu.Lock()
		t.sawPlain = true
		t.mu.Unlock()
		return t.plain, nil
	}
	t.mu.Lock()
	signed := t.signed
	t.mu.Unlock()
	if signed != nil {
		return signed, nil
	}
	found, err := detect()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCredentials, err)
	}
	c, err := httptransport.NewClient(&httptransport.Options{Credentials: found, BaseRoundTripper: t.plain, DisableTelemetry: true})
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.signed == nil { // of several that looked, the first is kept
		t.signed, t.credentials = c.Transport, found
	}
	return t.signed, nil
}

// newTransport speaks HTTP/1.1: one connection of HTTP/2 for everything is slower than many.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.DialContext = (&net.Dialer{Timeout: wire.Connect, KeepAlive: 30 * time.Second}).DialContext
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*wire.IdleConns, wire.IdleConns
	return t
}

// project returns the project that new buckets belong to, "" if the credentials name none.
func (t *transport) project(ctx context.Context) (string, error) {
	t.mu.Lock()
	found, sawPlain := t.credentials, t.sawPlain
	t.mu.Unlock()
	switch {
	case found != nil:
		if id, err := found.ProjectID(ctx); err != nil || id != "" {
			return id, err
		}
		return found.QuotaProjectID(ctx)
	case sawPlain:
		return emulated, nil
	}
	return "", nil
}
