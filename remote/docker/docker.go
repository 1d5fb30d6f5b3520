// Package docker runs containers on one Docker engine, over whatever connection it is given.
//
// It promises that every call may be repeated: what is created is named by its caller, so that a second call finds the first one's
// work; what is to be removed may be gone already. Errors are a *replicate.Error in our words, with the kind and the hint that
// belong to the cause. The version of the API is negotiated, from 1.40 on, and never asked for.
//
// It knows no SSH (it is given a Dialer), no experiments beyond the names and labels that its objects carry, and nothing of what
// runs in a container but the path of the program it delivers.
//
// # Streams
//
// An engine stops a job whose output nobody reads: whoever opens a stream (Attach, Exec, GetArchive) reads it to its end or
// closes it. A cancelled context closes the connection under a stream; connections without deadlines are fine.
package docker

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"

	"github.com/replicate/replicate"
)

// A Dialer opens a connection to an engine. What it returns should have CloseWrite, or the input of an Exec cannot end before its output.
type Dialer func(ctx context.Context) (net.Conn, error)

// idleConnections are kept open between calls: as many as calls are made at the same time. On a far host opening one is a round trip.
const idleConnections = 5

// An Engine is one Docker engine. Its methods may be called at the same time.
type Engine struct {
	api   *client.Client
	ahead atomic.Int64 // of the engine's clock before ours, by its latest answer

	unlimited atomic.Bool // the host refused the ulimits of a container
}

// Open asks an engine which API it speaks: one round trip. The Dialer's own error is in the chain of what Open returns.
func Open(ctx context.Context, dial Dialer) (*Engine, error) {
	e, err := connect(dial)
	if err != nil {
		return nil, err
	}
	err = e.call(ctx, "ask Docker", "", func(ctx context.Context) error {
		ping, err := e.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		if err != nil && ping.APIVersion != "" {
			return replicate.Errorf(replicate.Usage, "Docker on the host speaks API %s, which is too old: %s came with Docker 19.03", ping.APIVersion, client.MinAPIVersion)
		}
		return err
	})
	if err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Assume is Open for an engine of which API said some version the last time: it asks nothing, so that calls can be made at once. They count only if
// an Open beside them finds that version again: other engines refuse them, or answer something else.
func Assume(dial Dialer, version string) (*Engine, error) {
	return connect(dial, client.WithAPIVersion(version))
}

func connect(dial Dialer, more ...client.Opt) (*Engine, error) {
	e := &Engine{}
	// Without HTTP/2, for which the transport gets settings for TLS: with those the client dials by itself.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	transport := &http.Transport{MaxIdleConns: idleConnections, MaxIdleConnsPerHost: idleConnections, Protocols: &protocols}
	options := append(more,
		client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		}),
		client.WithHTTPResponseHook(e.notice),
	)
	var err error
	if e.api, err = client.New(options...); err != nil {
		return nil, &replicate.Error{Op: "open Docker", Kind: replicate.Internal, Err: err}
	}
	return e, nil
}

// Close closes the connections that no stream uses.
func (e *Engine) Close() error { return e.api.Close() }

// API returns the version of the API that is spoken with the engine.
func (e *Engine) API() string { return e.api.ClientVersion() }

// Now returns the present time by the engine's clock, to a second or so: ages of what it created are told by it.
func (e *Engine) Now() time.Time { return time.Now().Add(time.Duration(e.ahead.Load())) }

// notice looks at the head of every answer of the engine.
func (e *Engine) notice(answer *http.Response) {
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		e.ahead.Store(int64(time.Until(date)))
	}
	if status, ok := answer.Request.Context().Value(statusKey{}).(*atomic.Int64); ok {
		status.Store(int64(answer.StatusCode))
	}
}

// Info is what an engine says of itself and its machine.
type Info struct {
	ID       string // not an identity: machines cloned from one another have the same
	Name     string // of the machine
	Version  string // of the engine
	OS       string // linux
	Arch     string // amd64, arm64, as Go names it
	CPUs     int
	Memory   int64
	Runtimes []string // sorted
	CDIDirs  []string // where it looks for devices of the Container Device Interface; empty if it does not
	Rootless bool
	Root     string    // the directory it keeps everything in
	Time     time.Time // by its clock
}

// HasRuntime reports whether containers can be run by a runtime of this name.
func (i Info) HasRuntime(name string) bool { return slices.Contains(i.Runtimes, name) }

// architectures are Go's names for what uname calls machines.
var architectures = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}

// Info asks the engine about itself.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	var info Info
	err := e.call(ctx, "ask Docker", "", func(ctx context.Context) error {
		answer, err := e.api.Info(ctx, client.InfoOptions{})
		if err != nil {
			return err
		}
		said := answer.Info
		info = Info{
			ID: said.ID, Name: said.Name, Version: said.ServerVersion, OS: said.OSType, Arch: said.Architecture,
			CPUs: said.NCPU, Memory: said.MemTotal, CDIDirs: said.CDISpecDirs, Root: said.DockerRootDir, Time: e.Now(),
			Rootless: slices.ContainsFunc(said.SecurityOptions, func(option string) bool {
				return strings.HasPrefix(option, "name=rootless")
			}),
		}
		if arch, ok := architectures[said.Architecture]; ok {
			info.Arch = arch
		}
		for name := range said.Runtimes {
			info.Runtimes = append(info.Runtimes, name)
		}
		slices.Sort(info.Runtimes)
		if exact, err := time.Parse(time.RFC3339Nano, said.SystemTime); err == nil {
			info.Time = exact
		}
		return nil
	})
	return info, err
}
