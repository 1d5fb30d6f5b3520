package ssh

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/replicate/replicate"
)

// errSilent is a host that took the connection and then said too little.
var errSilent = errors.New("the host says nothing")

// explain makes the error of Dial: what was done, to whom, why it did not work, and what to do.
func explain(a Address, err error) error {
	err = understand(err)
	return &replicate.Error{Op: "connect to", Path: a.String(), Kind: replicate.KindOf(err), Err: err, Hint: replicate.HintOf(err)}
}

// understand gives an error a kind, words and a hint, unless it has them.
func understand(err error) error {
	if _, ok := errors.AsType[*replicate.Error](err); ok {
		return err
	}
	why, hint := reason(err)
	e := &replicate.Error{Kind: replicate.Unavailable, Err: &worded{why, err}, Hint: hint}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case isDNS && dns.IsNotFound, errors.Is(err, os.ErrNotExist):
		e.Kind = replicate.NotFound
	case errors.Is(err, os.ErrPermission):
		e.Kind = replicate.Permission
	}
	return e
}

// A worded error has better words than its cause.
type worded struct {
	text string
	err  error
}

func (s *worded) Error() string { return s.text }
func (s *worded) Unwrap() error { return s.err }

// reason puts into words what the network said.
func reason(err error) (why, hint string) {
	where := ""
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		where = op.Addr.String()
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	_, isHop := errors.AsType[*hopError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case isHop:
		return "the jump host cannot reach it: " + said(err), "its name and port are looked up there, not here"
	case isDNS && dns.IsNotFound:
		return "no host has the name " + dns.Name, "check the name, or give it a HostName in ~/.ssh/config"
	case isDNS:
		return "the name " + dns.Name + " cannot be looked up: " + dns.Err, "is this machine online?"
	case errors.Is(err, errSilent):
		return "no answer within " + handshakePatience.String(), "something takes the connection and is no sshd, or the machine is overloaded"
	case errors.Is(err, syscall.ECONNREFUSED):
		return where + " refuses the connection", "is sshd running there, on this port?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to " + where, "is a VPN needed?"
	case errors.Is(err, context.Canceled):
		return "cancelled", ""
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return "no answer in time", "is the machine on, and can this network reach it?"
	}
	return said(err), ""
}

// negotiated explains what went wrong in a handshake.
func negotiated(err error, v *verifier, l *login) error {
	text := err.Error()
	if e, ok := errors.AsType[*replicate.Error](err); ok {
		return e
	}
	known := v.of("")
	ended := errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	algorithms, isNegotiation := errors.AsType[*ssh.AlgorithmNegotiationError](err)
	switch {
	case errors.Is(err, errOpenSSH), errors.Is(err, errTicket), l.fatal != nil:
		return err
	case isNegotiation && algorithms.What == "host key" && len(known) > 0:
		return v.gone(known[0])
	case isNegotiation:
		return replicate.Errorf(replicate.Unavailable, "the host and this program have no algorithm in common: %s", said(algorithms)).
			WithHint("REPLICATE_SSH=openssh lets the ssh program connect")
	case strings.Contains(text, "Too many authentication failures"):
		return replicate.Errorf(replicate.Permission, "the host ended it after too many keys it does not take: %s", strings.Join(l.offered, ", ")).
			WithHint("name the right one: -i, or IdentityFile and IdentitiesOnly yes in ssh_config")
	case ended && len(l.allowed) > 0:
		return replicate.Errorf(replicate.Unavailable, "the host ended the connection while keys were offered: %s", strings.Join(l.offered, ", ")).
			WithHint("it may take fewer attempts (MaxAuthTries): name the right key with -i")
	case ended:
		return replicate.Errorf(replicate.Unavailable, "the host ended the connection").
			WithHint("it may have too many connections (MaxStartups), or forbid this address or user")
	case strings.Contains(text, "version string"), strings.Contains(text, "overflow reading"):
		return replicate.Errorf(replicate.Unavailable, "what answers at %s is no sshd", v.c.hostport()).WithHint("check the port")
	}
	return err
}

// said is the text of an error without the names of the packages it went through.
func said(err error) string {
	text := err.Error()
	for _, prefix := range []string{"ssh: handshake failed: ", "ssh: ", "knownhosts: ", "agent: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return printable(text)
}
