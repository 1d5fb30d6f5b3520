package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

// The project of the runs: as large as the code of most is.
const (
	codeFiles = 300
	codeBytes = 6 << 20
	// manyBytes are those of a project with data, of which one in a hundred changes.
	manyBytes = 200 << 20
	manyFiles = 20
)

// roundTrips are those to a machine of the same building, of the next country, and of another continent's near coast.
var roundTrips = []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond}

// A desk is a person's machine with a host in reach.
type desk struct {
	*lab
	hosts *remotetest.Lab
	host  *remotetest.Host
	lines []*remotetest.Link
	ways  map[time.Duration]string // the host's name at the end of the line
	env   []string
}

// runRows measures replicate run on a host of the laboratory, beside docker and rsync over the same lines.
func runRows(l *lab) error {
	if os.Geteuid() != 0 {
		l.add("runs on another machine", "", "not measured: a host to run on needs root here")
		return nil
	}
	d, err := l.newDesk()
	if err != nil {
		return err
	}
	defer d.close()
	for _, rows := range []func(*desk) error{(*desk).firstLines, (*desk).attached, (*desk).connections, (*desk).uploads} {
		if err := rows(d); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) newDesk() (*desk, error) {
	hosts, err := remotetest.Open(filepath.Join(l.caches, "replicate-test"), remotetest.Options{})
	if err != nil {
		return nil, err
	}
	d := &desk{lab: l, hosts: hosts, host: hosts.Hosts[0], ways: map[time.Duration]string{0: hosts.Hosts[0].Name}}
	d.env = append(os.Environ(), "PATH="+hosts.Bin+":"+os.Getenv("PATH"), "HOME="+l.path("home"), "XDG_CACHE_HOME="+l.path("home", "cache"))
	for _, rtt := range roundTrips[1:] {
		line, err := d.host.Lay(remotetest.Quality{Latency: rtt / 2})
		if err != nil {
			d.close()
			return nil, err
		}
		d.lines, d.ways[rtt] = append(d.lines, line), line.Name
	}
	return d, os.MkdirAll(l.path("home"), 0o700)
}

func (d *desk) close() {
	for _, line := range d.lines {
		line.Close()
	}
	d.hosts.Close()
}

// command is a program of the desk, in a directory of the laboratory.
func (d *desk) command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = d.path(dir), d.env
	return cmd
}

func (d *desk) run(dir string, rtt time.Duration, args ...string) *exec.Cmd {
	return d.command(dir, d.binary, append([]string{"run", "-H", d.ways[rtt]}, args...)...)
}

// makeProject writes a project of random files that a host runs in the laboratory's image.
func (d *desk) makeProject(dir string, files int, bytes int64) error {
	random := rand.NewChaCha8([32]byte{3})
	for i := range files {
		name := d.path(dir, fmt.Sprintf("%02d", i%20), fmt.Sprintf("%04d.bin", i))
		if err := writeRandom(name, bytes/int64(files), random); err != nil {
			return err
		}
	}
	return os.WriteFile(d.path(dir, "replicate.yaml"), []byte("image: "+remotetest.Image+"\n"), 0o644)
}

// A span is how long a command took until something of its output was read, and until its end.
type span struct{ first, whole timing }

// A starter is one way to see a line of output.
type starter struct {
	name    string
	command func() *exec.Cmd
}

// until runs a command, and returns when what it prints contains a word, and when it ended. With early it is killed once the word is there.
func until(cmd *exec.Cmd, onStderr bool, word string, early bool) (seen, ended time.Duration, err error) {
	var said strings.Builder
	var from io.ReadCloser
	if onStderr {
		from, err = cmd.StderrPipe()
	} else {
		cmd.Stderr = &said
		from, err = cmd.StdoutPipe()
	}
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	for lines := bufio.NewReader(from); ; {
		line, err := lines.ReadString('\n')
		if seen == 0 && strings.Contains(line, word) {
			seen = time.Since(start)
			if early {
				cmd.Process.Kill()
			}
		}
		if onStderr {
			said.WriteString(line)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	ended = time.Since(start)
	if seen == 0 || err != nil && !early {
		return 0, 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, said.String())
	}
	return seen, ended, nil
}

// raceLines times the ways to see a line, in turn. The first round of each is not counted: it brings what every later one finds.
func (d *desk) raceLines(ways []starter) (map[string]*span, error) {
	spans := map[string]*span{}
	for round := range d.rounds + 1 {
		for _, way := range ways {
			first, whole, err := until(way.command(), false, "x", false)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.name, err)
			}
			if spans[way.name] == nil {
				spans[way.name] = &span{}
			}
			if s := spans[way.name]; round > 0 {
				s.first, s.whole = append(s.first, first), append(s.whole, whole)
			}
		}
	}
	return spans, nil
}

// firstLines measures how long it takes until a job's first line is here when nothing changed since the last run.
func (d *desk) firstLines() error {
	if err := d.makeProject("code", codeFiles, codeBytes); err != nil {
		return err
	}
	docker := func(args ...string) func() *exec.Cmd {
		return func() *exec.Cmd { return d.command("code", "/usr/bin/docker", args...) }
	}
	there := []string{"-H", "unix://" + d.host.Socket(), "run", "--rm"}
	job := []string{remotetest.Image, "sh", "-c", "echo x"}
	ways := []starter{
		{"docker run on the host", docker(slices.Concat(there, job)...)},
		{"with its network", docker(slices.Concat(there, []string{"--network=host"}, job)...)},
	}
	for _, rtt := range roundTrips {
		ways = append(ways, starter{"replicate" + rtt.String(), func() *exec.Cmd { return d.run("code", rtt, "sh", "-c", "echo x") }},
			starter{"docker" + rtt.String(), docker(slices.Concat([]string{"-H", "ssh://" + d.ways[rtt], "run", "--rm"}, job)...)})
	}
	spans, err := d.raceLines(ways)
	if err != nil {
		return err
	}
	bars := map[time.Duration]string{0: "500 ms", 50 * time.Millisecond: "1.00 s"}
	for _, rtt := range roundTrips {
		ours, theirs := spans["replicate"+rtt.String()], spans["docker"+rtt.String()]
		peers := []string{"docker -H ssh:// run " + theirs.first.String()}
		whole := []string{"docker -H ssh:// run " + theirs.whole.String()}
		if rtt == 0 {
			for _, way := range ways[:2] {
				peers = append(peers, way.name+" "+spans[way.name].first.String())
				whole = append(whole, way.name+" "+spans[way.name].whole.String())
			}
		}
		d.add("first line of a run, "+name(rtt), ours.first.String(), bars[rtt], peers...)
		d.add("the whole command, "+name(rtt), ours.whole.String(), "", whole...)
	}
	return nil
}

// name is how the table calls a way.
func name(rtt time.Duration) string {
	if rtt == 0 {
		return "LAN"
	}
	return fmt.Sprintf("%d ms away", rtt.Milliseconds())
}

// attached measures the commands for a job that goes on.
func (d *desk) attached() error {
	out, err := d.run("code", 0, "-d", "sh", "-c", "while :; do echo x; sleep 0.01; done").Output()
	if err != nil {
		return err
	}
	id := strings.TrimSpace(string(out))
	defer d.command("code", d.binary, "stop", id).Run()
	var attach, ps timing
	for range d.rounds {
		first, _, err := until(d.command("code", d.binary, "attach", id), false, "x", true)
		if err != nil {
			return err
		}
		attach = append(attach, first)
		_, whole, err := until(d.command("code", d.binary, "ps"), false, id[:7], false)
		if err != nil {
			return err
		}
		ps = append(ps, whole)
	}
	d.add("attach, first line", attach.String(), "300 ms")
	d.add("ps, one host", ps.String(), "200 ms")
	return nil
}

// connections counts those that commands make, in the log of the host's sshd.
func (d *desk) connections() error {
	docker := d.command("code", "/usr/bin/docker", "-H", "ssh://"+d.host.Name, "run", "--rm", remotetest.Image, "true")
	var counts []string
	for _, cmd := range []*exec.Cmd{d.run("code", 0, "true"), docker} {
		before, err := d.host.CountConnections()
		if err == nil {
			err = cmd.Run()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
		}
		after, err := d.host.CountConnections()
		if err != nil {
			return err
		}
		counts = append(counts, fmt.Sprint(after-before))
	}
	d.add("connections to the host of a run", counts[0], "1", "docker -H ssh:// run "+counts[1])
	return nil
}

// uploads measures how long it takes from the start of a command until the host has the files of a project.
func (d *desk) uploads() error {
	d.rounds = min(d.rounds, mostFarRounds)
	if err := d.makeProject("data", manyFiles, manyBytes); err != nil {
		return err
	}
	for _, rtt := range []time.Duration{0, 50 * time.Millisecond} {
		for _, tree := range []struct {
			what, dir string
			change    func(round int) error
		}{
			{"300 new files of 6 MB on the host", "code", d.renew},
			{"1 % of 200 MB on the host", "data", d.touch},
		} {
			ours, rsync, err := d.upload(rtt, tree.dir, tree.change)
			if err != nil {
				return err
			}
			d.add(tree.what+", "+name(rtt), ours.String(), "", "rsync -a -e ssh "+rsync.String())
		}
	}
	return nil
}

func (d *desk) upload(rtt time.Duration, dir string, change func(round int) error) (ours, rsync timing, err error) {
	for round := range d.rounds + 1 {
		if err := change(round); err != nil {
			return nil, nil, err
		}
		sent, _, err := until(d.run(dir, rtt, "true"), true, "Sent ", false)
		if err != nil {
			return nil, nil, err
		}
		to := d.ways[rtt] + ":" + dir
		start := time.Now()
		if out, err := d.command(dir, "rsync", "-a", "--exclude=.replicate", "-e", "ssh", "./", to).CombinedOutput(); err != nil {
			return nil, nil, fmt.Errorf("rsync: %w: %s", err, out)
		}
		if round > 0 { // the first sends all of it
			ours, rsync = append(ours, sent), append(rsync, time.Since(start))
		}
		if err := d.clearHost(); err != nil {
			return nil, nil, err
		}
	}
	return ours, rsync, nil
}

// clearHost removes the runs from the host: the volume of each holds a whole project.
func (d *desk) clearHost() error {
	engine := "/usr/bin/docker -H unix://" + d.host.Socket()
	return sh(d.dir, `%[1]s ps -aq --filter label=replicate.kind=run | xargs -r %[1]s rm -f
		%[1]s volume ls -q --filter label=replicate.kind=run | xargs -r %[1]s volume rm`, engine)
}

// renew replaces all files of the small project.
func (d *desk) renew(round int) error {
	random := rand.NewChaCha8([32]byte{4, byte(round), byte(time.Now().UnixNano())})
	return filepath.WalkDir(d.path("code"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".bin" {
			return err
		}
		return writeRandom(path, codeBytes/codeFiles, random)
	})
}

// touch overwrites a stretch of one file of the large project: one in a hundred of all bytes.
func (d *desk) touch(round int) error {
	f, err := os.OpenFile(d.path("data", fmt.Sprintf("%02d", round%manyFiles), fmt.Sprintf("%04d.bin", round%manyFiles)), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{5, byte(round), byte(time.Now().UnixNano())})
	_, err = io.CopyN(io.NewOffsetWriter(f, manyBytes/manyFiles/4), random, manyBytes/100)
	return err
}
