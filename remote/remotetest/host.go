package remotetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// docker is Debian's client, which goes with its engine.
const docker = "/usr/bin/docker"

// inside is where a host sees its directory.
const inside = "/run/lab"

// A Host is a machine of a laboratory.
type Host struct {
	Name    string // rh1, rh2: what ssh calls it
	Address string // 10.78.N.2, port 22; rh2's is known on rh1 only

	lab    *Lab
	number int
	dir    string
	pid    int    // of its process 1
	cable  string // this machine's end of the one to it, "" for rh2
}

func newHost(lab *Lab, number int) *Host {
	h := &Host{Name: fmt.Sprintf("rh%d", number), lab: lab, number: number}
	h.dir = filepath.Join(lab.dir, h.Name)
	h.Address = h.address(2)
	return h
}

// address is that of one end of the host's cable: 2 is the host.
func (h *Host) address(end int) string {
	return fmt.Sprintf("10.78.%d.%d", h.lab.place*8+h.number, end)
}

func (h *Host) file(name string) string { return filepath.Join(h.dir, name) }

// start lays out a host and starts it. Its life hangs on control, its place on lock.
func (h *Host) start(base string, options Options, control, lock *os.File) error {
	for _, name := range []string{"data", "bin"} {
		if err := os.MkdirAll(h.file(name), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{"name": h.Name, "cgroup": h.lab.cgroup, "base": base, "sshd_config": h.sshdConfig()}
	if options.Disk > 0 {
		files["disk"] = strconv.FormatInt(options.Disk, 10)
	}
	for name, text := range files {
		if err := os.WriteFile(h.file(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := writeScripts(h.dir); err != nil {
		return err
	}
	if _, err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", h.Name, "-f", h.file("host_key")); err != nil {
		return err
	}
	key, err := os.ReadFile(h.lab.Key() + ".pub")
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.file("authorized_keys"), key, 0o644); err != nil {
		return err
	}
	return h.live(control, lock)
}

// live starts the process that the host lives in.
func (h *Host) live(control, lock *os.File) error {
	log, err := os.Create(h.dir + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	guard := exec.Command("/bin/sh", h.file("guard.sh"), h.dir, h.lab.cgroup)
	guard.Stdin, guard.Stdout, guard.Stderr, guard.ExtraFiles = control, log, log, []*os.File{lock}
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what interrupts the test does not interrupt the cleaning up
	if err := guard.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		guard.Wait()
		close(ended)
	}()
	return await("start", func() error {
		text, err := os.ReadFile(h.file("pid"))
		if err == nil {
			h.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
			return err
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			return final{fmt.Errorf("its process 1 ended: %s", said)}
		default:
			return err
		}
	})
}

// sshdConfig is the configuration of sshd, in which more lines come first: sshd takes the first value it reads.
func (h *Host) sshdConfig(lines ...string) string {
	return strings.Join(lines, "\n") + fmt.Sprintf(`
HostKey %[1]s/host_key
AuthorizedKeysFile %[1]s/authorized_keys
PidFile /run/sshd.pid
SetEnv PATH=%[1]s/bin:/usr/bin:/bin:/usr/local/bin
LogLevel VERBOSE
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
StrictModes no
MaxStartups 100
`, inside)
}

// Socket is the path of the engine's socket as this machine sees it.
func (h *Host) Socket() string { return fmt.Sprintf("/proc/%d/root/run/docker.sock", h.pid) }

// Dial opens a connection to the host's engine without SSH.
func (h *Host) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
}

// await returns when the host's engine answers.
func (h *Host) await() error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return h.Dial(ctx) }}
	ping := &http.Client{Timeout: 5 * time.Second, Transport: transport}
	return await("Docker", func() error {
		answer, err := ping.Get("http://docker/_ping")
		if err != nil {
			log, _ := os.ReadFile(h.file("dockerd.log"))
			return fmt.Errorf("%w\n%s", err, log[max(0, len(log)-2000):])
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}

// network runs a program of this machine in the host's network.
func (h *Host) network(argv ...string) (string, error) {
	return run(append([]string{"nsenter", "--target", strconv.Itoa(h.pid), "--net", "--"}, argv...)...)
}

// Command is a program to be run as root on the host itself, without SSH.
func (h *Host) Command(argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(h.pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--wd=/", "--"}
	return exec.Command("nsenter", append(enter, argv...)...)
}

// Run runs a program as root on the host itself, without SSH, and returns what it prints.
func (h *Host) Run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := finish(h.Command(argv...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Docker runs Docker's command on the host, and returns what it prints.
func (h *Host) Docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := run(append([]string{docker, "-H", "unix://" + h.Socket()}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// SSHLog is what the host's sshd wrote so far. Each connection has a line with "Connection from".
func (h *Host) SSHLog(t testing.TB) string {
	t.Helper()
	log, err := h.sshLog()
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func (h *Host) sshLog() (string, error) {
	log, err := os.ReadFile(h.file("sshd.log"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return string(log), err
}

// Connections counts the connections to the host's sshd so far.
func (h *Host) Connections(t testing.TB) int {
	t.Helper()
	n, err := h.CountConnections()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// CountConnections is Connections for a program that is no test.
func (h *Host) CountConnections() (int, error) {
	log, err := h.sshLog()
	return strings.Count(log, "Connection from "), err
}

// SSHD starts the host's sshd anew with more lines in its configuration, such as "MaxSessions 1", until the test ends.
func (h *Host) SSHD(t testing.TB, lines ...string) {
	t.Helper()
	restart := func(lines ...string) {
		if err := os.WriteFile(h.file("sshd_config"), []byte(h.sshdConfig(lines...)), 0o644); err != nil {
			t.Fatal(err)
		}
		h.Run(t, "sh", inside+"/sshd.sh")
	}
	t.Cleanup(func() { restart() })
	restart(lines...)
}

// RestartDocker stops the host's engine as its machine's administrator would, and starts it with more arguments, such as "--live-restore".
func (h *Host) RestartDocker(t testing.TB, args ...string) {
	t.Helper()
	h.Run(t, append([]string{"sh", inside + "/dockerd.sh"}, args...)...)
	if err := h.await(); err != nil {
		t.Fatal(err)
	}
}

// Link lays a bad line to the host's sshd until the test ends: what ssh calls by the line's name. There is none to rh2.
func (h *Host) Link(t testing.TB, quality Quality) *Link {
	t.Helper()
	link, err := h.Lay(quality)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	return link
}

// Lay is Link for a program that is no test. The line lies until its Close.
func (h *Host) Lay(quality Quality) (*Link, error) {
	if h.cable == "" {
		return nil, fmt.Errorf("there is no way from here to %s", h.Name)
	}
	link, err := layLink(h.Address+":22", quality)
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(link.Addr)
	link.Name = h.Name + "-" + port
	if err := h.lab.know(h, link.Name, port); err != nil {
		link.Close()
		return nil, err
	}
	return link, nil
}

// Freeze takes the cable between this machine and rh1 out: nothing arrives, and nothing tells so. Thaw puts it back; the end of the test does, too.
func (h *Host) Freeze(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { h.Thaw(t) })
	h.setCable(t, "down")
}

// Thaw puts the cable back.
func (h *Host) Thaw(t testing.TB) {
	t.Helper()
	h.setCable(t, "up")
}

func (h *Host) setCable(t testing.TB, state string) {
	t.Helper()
	if h.cable == "" {
		t.Fatalf("there is no cable from here to %s", h.Name)
	}
	if _, err := run("ip", "link", "set", h.cable, state); err != nil {
		t.Fatal(err)
	}
}

// FillDisk leaves so many bytes of a host's disk free, which Options.Disk made small, until the test ends or what it returns is called.
func (h *Host) FillDisk(t testing.TB, free int64) (empty func()) {
	t.Helper()
	empty = func() { h.Run(t, "rm", "-f", inside+"/data/filler") }
	t.Cleanup(empty)
	h.Run(t, "sh", "-c", `set -e; test -f "$1/disk" || { echo "the disk is the machine's own" >&2; exit 1; }
		avail=$(df --output=avail -B1 "$1/data" | tail -1)
		head -c $((avail - $2)) /dev/zero >"$1/data/filler"`, "sh", inside, strconv.FormatInt(free, 10))
	return empty
}
