package ssh

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate"
)

// A master is a connection made by the ssh program, or one that the user has already made (ControlMaster) and that is used along.
// Sockets and ports come through it as sockets in a private folder, commands by more ssh programs that speak to it.
//
// It lives as long as its holder, a session that echoes what it gets: that is how a ping is answered, how its end is noticed, and why
// it ends with this process, however that ends.
type master struct {
	program, host string
	control       string // its socket
	borrowed      bool   // the user's own
	folder        string // of sockets, 0700
	count         atomic.Int64
	once          sync.Once // of close

	turn   sync.Mutex // whose ping it is: guards the two that follow, and is held until the echo is there
	holder *child
	echoes *bufio.Reader

	mu    sync.Mutex // guards doors
	doors map[string]*door
}

// A door is a socket here that leads to an address there.
type door struct {
	path    string
	forward string       // as -L wants it
	made    func() error // has the master make it, once
}

// masterArgs make a connection that does nothing but what is asked for later, and checks host keys.
var masterArgs = []string{"-T", "-o", "ControlPersist=no", "-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no", "-o", "ForwardX11=no",
	"-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none", "-o", "EscapeChar=none"}

// personPatience is for a person whom the ssh program asks: nobody here knows whether it does.
const personPatience = 10 * time.Minute

// partingPatience bounds what is taken back from the user's own connection, which may be frozen.
const partingPatience = 2 * time.Second

// needsOpenSSH says whether the configuration of a host on the way is for the ssh program alone, or it has a connection already.
func needsOpenSSH(ctx context.Context, way []*config, o Options) bool {
	if o.Program == "" {
		return false
	}
	for _, c := range way {
		if c.foreign != "" {
			return true
		}
	}
	return hasMaster(ctx, way[len(way)-1], o)
}

// hasMaster says whether the user's own connection to a host is alive.
func hasMaster(ctx context.Context, c *config, o Options) bool {
	if info, err := os.Stat(c.controlPath); err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	m := &master{program: o.Program, host: c.address.Host, control: c.controlPath}
	return m.tell(ctx, "check") == nil
}

// checkOpenSSH refuses what the ssh program would do too carelessly, or cannot do because it is not there.
func checkOpenSSH(way []*config, o Options) error {
	for _, c := range way {
		if o.Program == "" && (o.Transport == OpenSSH || c.foreign != "") {
			return replicate.Errorf(replicate.Usage, "there is no ssh program, which %s needs", orElse(c.foreign, "this transport")).WithHint("install it")
		}
	}
	return nil
}

// dialOpenSSH connects by the ssh program. It asks at the terminal itself if there is somebody to ask.
func dialOpenSSH(ctx context.Context, way []*config, o Options) (*Conn, error) {
	c := way[len(way)-1]
	for _, hop := range way[:len(way)-1] {
		if hop.strict == "off" { // it cannot be told otherwise for the hosts on the way
			return nil, replicate.Errorf(replicate.Permission, "StrictHostKeyChecking no is not safe for the jump host %s", hop.address.Host).
				WithHint("set it to accept-new in ssh_config")
		}
	}
	folder, err := socketFolder()
	if err != nil {
		return nil, err
	}
	m := &master{program: o.Program, host: c.address.Host, folder: folder, doors: map[string]*door{}}
	argv := []string{o.Program, "-S", filepath.Join(folder, "ctl"), "-M"}
	if m.borrowed = hasMaster(ctx, c, o); m.borrowed {
		argv = []string{o.Program, "-S", c.controlPath, "-o", "ControlMaster=no"}
	}
	m.control = argv[2]
	argv = append(append(append(argv, masterArgs...), caution(c, o)...), append(sshArgs(c.address, o, o.Identity), shell)...)
	if err := m.hold(ctx, argv, o); err != nil {
		m.close()
		return nil, err
	}
	return newConn(m, c, ""), nil
}

// maxFolder is how long the path of a folder for sockets may be: theirs may have 104 bytes on some systems, and ssh adds 17 for a moment.
const maxFolder = 104 - 17 - len("/ctl") - 1

// socketFolder makes a folder that only we can read, where temporary files belong if paths there are short enough.
func socketFolder() (string, error) {
	const pattern = "replicate-ssh-"
	if len(os.TempDir())+len("/"+pattern)+10 > maxFolder { // MkdirTemp adds up to ten digits
		return os.MkdirTemp("/tmp", pattern)
	}
	return os.MkdirTemp("", pattern)
}

// caution are the arguments that keep the ssh program from trusting anybody new or asking nobody.
func caution(c *config, o Options) (args []string) {
	if c.strict == "off" {
		args = append(args, "-o", "StrictHostKeyChecking=accept-new")
	}
	if o.Ask == nil {
		args = append(args, "-o", "BatchMode=yes")
	}
	return args
}

// hold starts the holder and waits until it echoes.
func (m *master) hold(ctx context.Context, argv []string, o Options) (err error) {
	if m.holder, err = startChild(nil, argv...); err != nil {
		return err
	}
	span := connectPatience + handshakePatience
	if o.Ask != nil {
		span = personPatience
	}
	clock := newPatience(span, func() { m.holder.Close() })
	defer clock.stop()
	defer context.AfterFunc(ctx, func() { m.holder.Close() })()
	first := marker()
	m.echoes = bufio.NewReader(&meter{Conn: m.holder, count: &m.count})
	fmt.Fprintf(m.holder, "echo %s; exec cat\n", first)
	if _, err = skip(m.echoes, first); err == nil {
		return nil
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case clock.over():
		return errSilent
	}
	_, _, err = m.holder.wait()
	return explainOpenSSH(err, m.host)
}

// explainOpenSSH gives what the ssh program said last a kind and a hint.
func explainOpenSSH(err error, host string) error {
	if err == nil {
		return replicate.Errorf(replicate.Permission, "the host runs something else in place of a shell").
			WithHint("the account may have no shell, or one command that is forced on it (ForceCommand, command= in authorized_keys)")
	}
	text := err.Error()
	last := strings.TrimSuffix(text[strings.LastIndexByte(text, '\n')+1:], ".")
	e := replicate.Errorf(replicate.Unavailable, "%s", last).WithHint("ssh %s says more", host)
	switch {
	case strings.Contains(text, "HOST IDENTIFICATION HAS CHANGED"):
		e.Kind = replicate.Conflict
		e.Err = errors.New("the key of the host has changed")
	case strings.Contains(text, "Host key verification failed"):
		e.Kind = replicate.Permission
		e.Hint = fmt.Sprintf("run ssh %s once, and compare", host)
	case strings.Contains(text, "Permission denied"), strings.Contains(text, "Too many authentication failures"):
		e.Kind = replicate.Permission
	case strings.Contains(text, "Could not resolve hostname"):
		e.Kind = replicate.NotFound
	}
	return e
}

// tell has the ssh program say something to the master.
func (m *master) tell(ctx context.Context, what string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, pingPatience)
	defer cancel()
	argv := append(append([]string{"-F", "none", "-S", m.control, "-O", what}, args...), "--", m.host)
	cmd := exec.CommandContext(ctx, m.program, argv...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(orElse(printable(string(out)), said(err)))
	}
	return nil
}

func (m *master) open(ctx context.Context, network, address string) (net.Conn, error) {
	to := m.door(network, address)
	if _, err := within(ctx, func() (struct{}, error) { return struct{}{}, to.made() }, func(struct{}) {}); err != nil {
		m.forget(network, address)
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", to.path)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := m.prove(ctx, conn.(*net.UnixConn)); err != nil {
			conn.Close()
			return nil, err
		}
	}
	metered := &meter{Conn: conn, count: &m.count}
	return newStream(address, metered, halfCloser{conn}, func() { conn.Close() }, nil), nil
}

// door returns the door to an address. Those who want the same one wait for one of them to make it.
func (m *master) door(network, address string) *door {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.doors[network+address]; d != nil {
		return d
	}
	path := filepath.Join(m.folder, rand.Text()[:8]) // short: the path of a socket is at most 104 bytes
	d := &door{path: path, forward: path + ":" + there(network, address)}
	d.made = sync.OnceValue(func() error { return m.tell(context.Background(), "forward", "-L", d.forward) })
	m.doors[network+address] = d
	return d
}

// forget has a door that could not be made be tried again.
func (m *master) forget(network, address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.doors, network+address)
}

// there is an address as -L wants it.
func there(network, address string) string {
	if network == "unix" {
		return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(address)
	}
	return address
}

// prove finds out whether the host opened the channel behind a connection: the ssh program takes the connection in any case, and
// closes it once the host refuses. By the second echo that has happened: the first one is behind the request, the second behind the answer.
func (m *master) prove(ctx context.Context, conn *net.UnixConn) error {
	for range 2 {
		if _, err := within(ctx, func() (struct{}, error) { return struct{}{}, m.ping() }, func(struct{}) {}); err != nil {
			return err
		}
	}
	if ended(conn) {
		return ErrRefused
	}
	return nil
}

func (m *master) exec(_ context.Context, command string) (process, error) {
	// Should the master be gone, no second connection is made: the command in its place fails.
	return startChild(nil, m.program, "-F", "none", "-S", m.control, "-T", "-o", "ProxyCommand=false", "-o", "BatchMode=yes", "--", m.host, command)
}

// ping has the holder echo a line.
func (m *master) ping() error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if _, err := io.WriteString(m.holder, "\n"); err != nil {
		return err
	}
	_, err := m.echoes.ReadString('\n')
	return err
}

func (m *master) received() int64 { return m.count.Load() }

func (m *master) wait() error {
	_, _, err := m.holder.wait()
	return err
}

func (m *master) close() {
	m.once.Do(func() {
		if m.holder != nil {
			m.holder.Close()
		}
		if m.borrowed {
			m.shutDoors()
		}
		os.RemoveAll(m.folder)
	})
}

// shutDoors takes back what was asked of the user's own master.
func (m *master) shutDoors() {
	m.mu.Lock()
	doors := slices.Collect(maps.Values(m.doors))
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), partingPatience)
	defer cancel()
	for _, d := range doors {
		m.tell(ctx, "cancel", "-L", d.forward)
	}
}
