// Package remotetest is a laboratory for tests of package remote: hosts with sshd and Docker on one Linux machine, and bad links to them.
//
//	this machine ── 10.78.N.0/24 ── rh1 ── 10.78.N+1.0/24 ── rh2
//
// Each host has namespaces of its own, /run, /etc and homes of its own, sshd, dockerd with the image python:3.11-slim, and the users dev, who may
// use Docker, alice, who may not, and root; all let the laboratory's key in. rh2 is reached through rh1 only. There is no way out of the
// laboratory: nothing can be pulled, but what listens on Gateway can be reached from rh1 and its containers.
//
// A laboratory is started once per process and shared by its tests, which use ids of their own and undo what they change; processes that
// run at the same time have one each. When a process ends, however it ends, its laboratory disappears.
//
// It needs root and the programs that make test installs; a test on a machine without them ends by require.Missing. It knows none of
// the packages it is used to test.
package remotetest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// Options of a laboratory. Tests that give the same ones share it.
type Options struct {
	// Disk is the size in bytes of what Docker may fill on each host, which is kept in memory then; 0 for the machine's disk. The image takes 210 MB of it.
	Disk int64
}

// A Lab is a laboratory.
type Lab struct {
	Hosts   []*Host // rh1, rh2
	Gateway string  // this machine's address, as rh1 sees it
	Home    string  // a home directory with .ssh/config, known_hosts and the key, for users of this laboratory
	Bin     string  // a directory with an ssh that uses them, to be put first in PATH: the real one looks in the home of the user's entry in passwd

	dir     string
	place   int
	cgroup  string
	control *os.File // as long as it is open the hosts live
}

// Image is what every engine of a laboratory has: Debian 12 with Python 3.11, pip and venv.
const Image = "python:3.11-slim"

const (
	places   = 16               // laboratories at the same time
	patience = 60 * time.Second // for what takes a second on a machine that does nothing else
)

//go:embed *.sh
var scripts embed.FS

var labs struct {
	sync.Mutex
	running map[Options]*Lab
	failed  map[Options]error
}

// Start returns the laboratory of these options, which it starts if no test of this process did before.
func Start(t testing.TB, options Options) *Lab {
	t.Helper()
	needs(t)
	labs.Lock()
	defer labs.Unlock()
	if lab, ok := labs.running[options]; ok {
		return lab
	}
	if err := labs.failed[options]; err != nil {
		t.Fatal(err)
	}
	lab, err := Open(require.Caches(t), options)
	if err != nil {
		if labs.failed == nil {
			labs.failed = map[Options]error{}
		}
		labs.failed[options] = err
		t.Fatal(err)
	}
	if labs.running == nil {
		labs.running = map[Options]*Lab{}
	}
	labs.running[options] = lab
	return lab
}

// needs ends a test on a machine where no laboratory can be.
func needs(t testing.TB) {
	t.Helper()
	require.Root(t)
	for _, program := range []string{"unshare", "nsenter", "ip", "iptables", "bash", "ssh", "ssh-keygen", "/usr/sbin/sshd", "dockerd", "containerd",
		"runc", docker, "debootstrap"} {
		require.Program(t, program)
	}
	if _, err := run("unshare", "--mount", "--pid", "--net", "--fork", "true"); err != nil {
		require.Missing(t, "the right to make namespaces")
	}
}

// Open starts a laboratory of its own for a program that is no test. What is made once per machine is below caches, in the directory of require.Caches.
func Open(caches string, options Options) (*Lab, error) {
	caches = filepath.Join(caches, "lab")
	base, err := baseOf(caches)
	if err != nil {
		return nil, err
	}
	place, lock, err := takePlace(caches)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the hosts have it
	lab := &Lab{dir: filepath.Join(caches, strconv.Itoa(place)), place: place, cgroup: fmt.Sprintf("/replicate-lab-%d", place)}
	lab.Home, lab.Bin = filepath.Join(lab.dir, "home"), filepath.Join(lab.dir, "bin")
	if err := lab.prepare(); err != nil {
		return nil, err
	}
	hosts, control, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer hosts.Close()
	lab.control = control
	for number := range 2 {
		lab.Hosts = append(lab.Hosts, newHost(lab, number+1))
	}
	if err := each(lab.Hosts, func(h *Host) error { return h.start(base, options, hosts, lock) }); err != nil {
		control.Close()
		return nil, err
	}
	if err := lab.connect(); err != nil {
		control.Close()
		return nil, err
	}
	return lab, each(lab.Hosts, (*Host).await)
}

// Close ends a laboratory before its process ends.
func (l *Lab) Close() error { return l.control.Close() }

// each runs f for all hosts at once.
func each(hosts []*Host, f func(*Host) error) error {
	all := make([]error, len(hosts))
	var wait sync.WaitGroup
	for i, h := range hosts {
		wait.Go(func() {
			if err := f(h); err != nil {
				all[i] = fmt.Errorf("%s: %w", h.Name, err)
			}
		})
	}
	wait.Wait()
	return errors.Join(all...)
}

// takePlace locks a place that no other laboratory is in.
func takePlace(caches string) (int, *os.File, error) {
	for place := range places {
		lock, err := os.OpenFile(filepath.Join(caches, fmt.Sprintf("%d.lock", place)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return 0, nil, err
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return place, lock, nil
		}
		lock.Close()
	}
	return 0, nil, fmt.Errorf("all %d places of %s are taken", places, caches)
}

// prepare clears what a laboratory left here whose guards were killed, and lays out what all hosts share.
func (l *Lab) prepare() error {
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup)
	for _, dir := range append(left, "/sys/fs/cgroup"+l.cgroup) {
		exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(l.Home, ".ssh"), 0o700); err != nil {
		return err
	}
	if _, err := run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", l.Key()); err != nil {
		return err
	}
	wrapper := "#!/bin/sh\nexec /usr/bin/ssh -F " + l.Config() + " \"$@\"\n"
	return errors.Join(os.MkdirAll(l.Bin, 0o700), os.WriteFile(filepath.Join(l.Bin, "ssh"), []byte(wrapper), 0o700))
}

// Key is the path of the private key that every user of every host lets in.
func (l *Lab) Key() string { return filepath.Join(l.Home, ".ssh", "id_ed25519") }

// Config is the path of a file for ssh -F. It knows the hosts by name, as dev, and rh2 through rh1.
func (l *Lab) Config() string { return filepath.Join(l.Home, ".ssh", "config") }

// KnownHosts is the path of the file with the hosts' keys.
func (l *Lab) KnownHosts() string { return filepath.Join(l.Home, ".ssh", "known_hosts") }

// connect lays the cables, and writes down for ssh what is at their ends.
func (l *Lab) connect() error {
	one, two := l.Hosts[0], l.Hosts[1]
	l.Gateway = one.address(1)
	cable := fmt.Sprintf("vrh%d", l.place)
	_, _ = run("ip", "link", "delete", cable) // the kernel may not have come to that yet, since the last laboratory here ended
	for _, line := range []string{
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", cable, one.pid),
		fmt.Sprintf("ip addr add %s/24 dev %s", one.address(1), cable),
		fmt.Sprintf("ip link set %s up", cable),
	} {
		if _, err := run(strings.Fields(line)...); err != nil {
			return err
		}
	}
	one.cable = cable
	for _, line := range []string{
		fmt.Sprintf("ip addr add %s/24 dev eth0", one.address(2)),
		"ip link set eth0 up",
		fmt.Sprintf("ip link add eth1 type veth peer name eth0 netns %d", two.pid),
		fmt.Sprintf("ip addr add %s/24 dev eth1", two.address(1)),
		"ip link set eth1 up",
	} {
		if _, err := one.network(strings.Fields(line)...); err != nil {
			return err
		}
	}
	for _, line := range []string{fmt.Sprintf("ip addr add %s/24 dev eth0", two.address(2)), "ip link set eth0 up"} {
		if _, err := two.network(strings.Fields(line)...); err != nil {
			return err
		}
	}
	return l.writeConfig()
}

// writeConfig writes what ssh has to know.
func (l *Lab) writeConfig() error {
	var config, known strings.Builder
	for i, h := range l.Hosts {
		fmt.Fprintf(&config, "Host %s\n\tHostName %s\n", h.Name, h.Address)
		if i > 0 {
			fmt.Fprintf(&config, "\tProxyJump %s\n", l.Hosts[0].Name)
		}
		key, err := os.ReadFile(h.file("host_key.pub"))
		if err != nil {
			return err
		}
		fmt.Fprintf(&known, "%s,%s %s", h.Name, h.Address, key)
	}
	fmt.Fprintf(&config, "Host *\n\tUser dev\n\tIdentityFile %s\n\tIdentitiesOnly yes\n\tUserKnownHostsFile %s\n\tGlobalKnownHostsFile /dev/null\n",
		l.Key(), l.KnownHosts())
	return errors.Join(os.WriteFile(l.Config(), []byte(config.String()), 0o600), os.WriteFile(l.KnownHosts(), []byte(known.String()), 0o600))
}

// know tells ssh a name for a port of this machine, behind which a host is.
func (l *Lab) know(h *Host, name, port string) error {
	config, err := os.OpenFile(l.Config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(config, "Host %s\n\tHostName 127.0.0.1\n\tPort %s\n\tHostKeyAlias %s\n", name, port, h.Name)
	return errors.Join(err, config.Close())
}

// run runs a program and returns what it prints; what it complains of is in the error.
func run(argv ...string) (string, error) {
	return finish(exec.Command(argv[0], argv[1:]...))
}

func finish(cmd *exec.Cmd) (string, error) {
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, complaint.String())
	}
	return string(out), nil
}

// A final error is one that asking again does not change.
type final struct{ error }

// await asks again and again until there is no error or a final one, or patience ends.
func await(what string, ask func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		err := ask()
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[final](err); ok || time.Now().After(end) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// writeScripts lays the scripts of a host into its directory.
func writeScripts(dir string) error {
	names, err := fs.Glob(scripts, "*.sh")
	if err != nil {
		return err
	}
	for _, name := range names {
		script, err := scripts.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), script, 0o755); err != nil {
			return err
		}
	}
	return nil
}
