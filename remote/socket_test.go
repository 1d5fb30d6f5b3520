package remote_test

import (
	"strings"
	"testing"
)

// TestEngineElsewhereIsRemembered has a user whose engine listens at a place of its own, as rootless ones do. It is looked for by a command on the host once, and again
// when it has moved.
func TestEngineElsewhereIsRemembered(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	const first, second = "/run/user/10782/docker.sock", "/run/user/10782/podman/podman.sock"
	host.Run(t, "install", "-d", "-o", "alice", "/run/user/10782", "/run/user/10782/podman")
	host.RestartDocker(t, "--host", "unix://"+first)
	t.Cleanup(func() {
		host.Run(t, "rm", "-rf", "/run/user/10782")
		host.RestartDocker(t)
	})
	host.Run(t, "chown", "alice", first)
	commands := 0
	run := func() int {
		t.Helper()
		if o := d.try("run", "-H", "alice@rh1", "--gpus", "none", "echo", "hello"); o.code != 0 || o.stdout != "hello\n" {
			t.Fatalf("exit code %d, stdout %q", o.code, o.stdout)
		}
		before := commands
		commands = strings.Count(host.SSHLog(t), "Starting session: command for alice")
		return commands - before
	}
	run()
	if n := run(); n != 0 {
		t.Errorf("the second run has %d commands executed on the host", n)
	}
	host.Run(t, "mv", first, second)
	if n := run(); n != 1 {
		t.Errorf("after the engine has moved, %d commands are executed on the host", n)
	}
	if n := run(); n != 0 {
		t.Errorf("after it was found again, %d commands are executed on the host", n)
	}
	if o := d.try("run", "-H", "alice@rh1/var/run/docker.sock", "--gpus", "none", "true"); !strings.Contains(o.stderr, "user alice may not use /var/run/docker.sock") {
		t.Errorf("another one than the one that is named is taken")
	}
}
