package remote_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// TestTwoHostsTrainIntoOneStorage trains the example on both hosts at once, into a disk of this machine and into buckets in turn. One list shows both.
func TestTwoHostsTrainIntoOneStorage(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *servers.Server{"Disk": nil, "S3": storagetest.StartVersity, "GCS": storagetest.StartGCS} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.must(os.RemoveAll(d.dir))
			d.must(os.CopyFS(d.dir, os.DirFS(filepath.Join(source, "examples", "iris"))))
			config := d.read(filepath.Join(d.dir, "replicate.yaml")) + "image: python:3.11-slim\n"
			if start != nil {
				s := start(t)
				d.expose(s)
				d.route()
				config += "storage: " + storagetest.Prefix(s.URL) + "\n"
			}
			d.write("replicate.yaml", config)
			var both sync.WaitGroup
			for _, host := range []string{"rh1", "rh2"} {
				both.Go(func() {
					if o := d.try("run", "-H", host, "python", "-u", "train.py", "--num_epochs=5"); o.code != 0 || strings.Count(o.stdout, "accuracy") != 5 {
						t.Errorf("on %s: exit code %d\n%s%s", host, o.code, o.stdout, o.stderr)
					}
				})
			}
			both.Wait()
			list := d.list("-s", "host")
			if len(list) != 2 || list[0].Host != "rh1" || list[1].Host != "rh2" {
				t.Fatalf("ls says %+v", list)
			}
			for _, e := range list {
				if e.Status != "finished" || e.NumCommits != 5 {
					t.Errorf("ls says %+v", e)
				}
				out := filepath.Join(d.home, e.ID)
				d.replicate("checkout", "-o", out, e.ID[:7]+"@latest")
				for _, file := range []string{"train.py", "iris.csv", "model.py"} {
					if d.read(filepath.Join(out, file)) != d.read(filepath.Join(d.dir, file)) {
						t.Errorf("%s of %s differs", file, e.ID)
					}
				}
			}
		})
	}
}

// TestRunIntoABucketIsAlive asks the bucket alone how a run is: whoever has it says that it lives, from before it is there until its end.
func TestRunIntoABucketIsAlive(t *testing.T) {
	d := newDesk(t)
	s := storagetest.StartVersity(t)
	d.expose(s)
	d.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"storage: "+storagetest.Prefix(s.URL)+"\n")
	d.write("wait.sh", "until [ -e go ]; do sleep 0.1; done\n")
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "rh1", "sh", "wait.sh"))
	is := func(status string) bool {
		list := d.list()
		if len(list) == 1 && list[0].Status == "lost" {
			t.Fatalf("ls says %+v", list)
		}
		return len(list) == 1 && list[0].Status == status
	}
	d.within(time.Minute, "it runs", func() bool { return is("running") })
	d.inside(d.lab.Hosts[0], id, "touch", "go")
	d.within(time.Minute, "it ends", func() bool { return is("finished") })
}

// route lets the host behind the other reach this machine, through that.
func (d *desk) route() {
	d.t.Helper()
	near, far := d.lab.Hosts[0], d.lab.Hosts[1]
	via := far.Address[:strings.LastIndexByte(far.Address, '.')] + ".1"
	near.Run(d.t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward && iptables -I FORWARD -i eth1 -j ACCEPT && iptables -I FORWARD -o eth1 -j ACCEPT && "+
		"iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE")
	far.Run(d.t, "ip", "route", "replace", "default", "via", via)
}

// expose lets the hosts of the laboratory reach a server of this machine by the address that this machine uses too.
func (d *desk) expose(s *servers.Server) {
	d.t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(d.lab.Gateway, "0"))
	d.must(err)
	d.t.Cleanup(func() { listener.Close() })
	var address string
	for name, value := range s.Env() {
		if _, after, ok := strings.Cut(value, "127.0.0.1:"); ok && after != "" {
			port, _, _ := strings.Cut(after, "/")
			address = "127.0.0.1:" + port
			value = strings.Replace(value, address, listener.Addr().String(), 1)
		}
		d.setenv(name, value)
	}
	if address == "" {
		d.t.Fatal("the server has no address")
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				to, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				defer to.Close()
				go func() {
					_, _ = io.Copy(to, conn)
					_ = to.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(conn, to)
			}()
		}
	}()
}

// TestExampleTrainsElsewhere runs the example's script as the guide says.
func TestExampleTrainsElsewhere(t *testing.T) {
	d := newDesk(t)
	examples := filepath.Join(d.home, "examples")
	d.must(os.CopyFS(examples, os.DirFS(filepath.Join(source, "examples"))))
	d.dir = filepath.Join(examples, "iris")
	d.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"image: python:3.11-slim\n")
	cmd := exec.Command("sh", filepath.Join(examples, "remote.sh"), "rh1", "rh2")
	cmd.Env = d.env
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "rh1") || !strings.Contains(string(out), "rh2") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, e := range d.list() {
		if e.Status != "finished" || e.NumCommits != 20 {
			t.Errorf("ls says %+v", e)
		}
	}
}
