package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/python"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/remote/image"
	"github.com/replicate/replicate/remote/ssh"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

// runName is the command whose flags end at its first argument.
const runName = "run"

const runHelp = `Runs a command in Docker, here or on another machine, and records it as an experiment. The project is copied
there, the environment that replicate.yaml describes is built if it is not there yet, and the output is
streamed. Commits land in the storage of the project. The job goes on when this machine leaves.

    replicate run python train.py --lr 0.1
    replicate run -H ben@gpu1 python train.py

A host needs sshd and Docker. It is named as for ssh, or in hosts: of replicate.yaml. Flags of replicate stand
before the command; a command that is a .py file is run by python -u. The exit code is that of the job; 124 is
--timeout, 125 an environment that could not be made, 255 a lost connection. Ctrl-C asks what to do.

docs/remote-machines.md is the guide.`

func runCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        runName,
		Usage:       "run a command in Docker, here or on another machine",
		ArgsUsage:   "COMMAND [ARG...]",
		Description: runHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "host", Aliases: []string{"H"}, Usage: "the machine: `HOST` is [user@]name[:port], a name of hosts: in replicate.yaml, or local"},
			identityFlag(),
			&cli.StringSliceFlag{Name: "mount", Aliases: []string{"m"}, Usage: "show a directory of that machine to the job: `SRC:DST`, writable with :rw (repeatable)"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "return when the job runs, and print the id"},
			&cli.StringFlag{Name: "gpus", Usage: "`N` GPUs for the job alone, waiting for them; all, none, or UUIDs with commas"},
			&cli.StringSliceFlag{Name: "env", Usage: "pass on the variable `NAME`, or NAME=VALUE (repeatable)"},
			&cli.StringFlag{Name: "shm-size", Usage: "`SIZE` of /dev/shm, half of the memory if not given"},
			&cli.StringFlag{Name: "image", Usage: "the Docker image `IMAGE` instead of that of replicate.yaml"},
			&cli.DurationFlag{Name: "timeout", Usage: "stop the job after `TIME`, such as 12h"},
			&cli.IntFlag{Name: "retries", Usage: "run it again up to `N` times when it fails"},
			&cli.IntSliceFlag{Name: "port", Aliases: []string{"p"}, Usage: "`PORT` of the job answers at 127.0.0.1 here (repeatable)"},
			&cli.BoolFlag{Name: "commit", Usage: "commit at the end if the job made no commit itself"},
			&cli.BoolFlag{Name: "no-docker", Usage: "run it right here, in place, under the same supervision"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error { return w.run(c) },
	}
}

func (w *world) run(c *cli.Context) error {
	p, err := w.project(c)
	if err != nil {
		return err
	}
	j, err := w.jobOf(c, p)
	if err != nil {
		return err
	}
	client, err := w.remote(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if c.Bool("dry-run") {
		return client.DryRun(ctx, j)
	}
	start := client.Start
	if c.Bool("no-docker") {
		start = client.StartHere
	}
	r, err := start(ctx, j)
	if err != nil {
		return w.notStarted(ctx, err)
	}
	stop()
	if j.Detach {
		if err := r.Leave(c.Context); err != nil {
			w.report("warning", err)
		}
		_, err := fmt.Fprintln(w.stdout, r.ID)
		return err
	}
	return w.follow(c.Context, r)
}

// notStarted says why no job runs, with the exit code that says so.
func (w *world) notStarted(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		w.say("stopped before the job began")
		return exitCode(exitInterrupted)
	case replicate.KindOf(err) == replicate.Usage:
		return err
	}
	if failed, ok := errors.AsType[*image.StepError](err); ok { // what it printed is lines
		for _, line := range failed.Last {
			w.say("  %s", line)
		}
		err = &replicate.Error{Op: "build", Path: failed.Step, Err: fmt.Errorf("exit code %d", failed.Code), Hint: replicate.HintOf(err)}
	}
	w.report("error", err)
	if _, refused := errors.AsType[*remote.ConnectError](err); refused || replicate.KindOf(err) == replicate.Unavailable {
		return exitCode(remote.ExitUnknown)
	}
	return exitCode(remote.ExitBroken)
}

// jobOf reads what is to be run from flags, arguments and replicate.yaml.
func (w *world) jobOf(c *cli.Context, p *project.Project) (remote.Job, error) {
	argv := c.Args().Slice()
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		return remote.Job{}, replicate.Errorf(replicate.Usage, "run wants a command").WithHint("replicate run python train.py")
	}
	j := remote.Job{
		Project: p, Dir: w.dir, Command: argv, Argv: argv, GPUs: c.String("gpus"), Timeout: c.Duration("timeout"), Retries: c.Int("retries"),
		Commit: c.Bool("commit"), Detach: c.Bool("detach"), Env: map[string]string{},
	}
	if strings.HasSuffix(argv[0], ".py") {
		j.Argv = append([]string{"python", "-u"}, argv...)
	}
	if c.Bool("no-docker") {
		for _, name := range []string{"host", "image", "mount", "port", "shm-size"} {
			if c.IsSet(name) {
				return j, replicate.Errorf(replicate.Usage, "--no-docker runs the command right here: it excludes --%s", name)
			}
		}
	}
	var err error
	if j.Target, err = w.target(c, p, c.String("host")); err != nil {
		return j, err
	}
	for _, text := range c.StringSlice("mount") {
		m, err := w.mountOf(text, j.Target.Local)
		if err != nil {
			return j, err
		}
		j.Mounts = append(j.Mounts, m)
	}
	for _, port := range c.IntSlice("port") {
		if port < 1 || port > 65535 {
			return j, replicate.Errorf(replicate.Usage, "%d is no port", port)
		}
		j.Ports = append(j.Ports, uint16(port))
	}
	if text := c.String("shm-size"); text != "" {
		bytes, ok := index.ParseSize(text)
		if !ok || bytes < 1 {
			return j, replicate.Errorf(replicate.Usage, "--shm-size is %q, expected a size", text).WithHint("such as 8GB")
		}
		j.ShmSize = int64(bytes)
	}
	if i := recorder.SecretArg(argv); i >= 0 {
		w.report("warning", replicate.Errorf(replicate.Usage, "argument %d of the command looks like a secret, and can be seen on the machine that runs it", i).
			WithHint("--env NAME passes it on unseen"))
	}
	j.Environment = w.environment(c, p)
	return j, w.variables(&j, append(slices.Clone(p.Config.Env), c.StringSlice("env")...))
}

// environment is what the image of a run is made of.
func (w *world) environment(c *cli.Context, p *project.Project) image.Inputs {
	in := image.Inputs{
		Image: p.Config.Image, Python: p.Config.Python, CUDA: p.Config.CUDA, Requirements: p.Config.PythonRequirements,
		Install: p.Config.Install, InstallScript: p.Config.InstallScript, Around: w.around(p),
	}
	if image := c.String("image"); image != "" {
		in.Image, in.Python, in.CUDA = image, "", ""
	}
	if in.Image == "" && in.Python == "" {
		in.PythonHere = pythonHere(c.Context)
	}
	return in
}

// around is what this process adds to an environment.
func (w *world) around(p *project.Project) image.Around {
	uv, _ := exec.LookPath("uv") // "" if there is none
	a := image.Around{Root: p.Root, UV: uv, Lookup: func(name string) (string, bool) { value := w.getenv(name); return value, value != "" }}
	if more := strings.Fields(w.getenv("PIP_EXTRA_INDEX_URL")); w.getenv("PIP_INDEX_URL") != "" || len(more) > 0 {
		a.Indexes = append([]string{cmp.Or(w.getenv("PIP_INDEX_URL"), "https://pypi.org/simple")}, more...)
	}
	return a
}

// pythonHere returns the version of python3 on this machine, such as 3.11; "" if there is none.
func pythonHere(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "python3", "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// mountOf reads SRC:DST[:rw].
func (w *world) mountOf(text string, local bool) (replicate.Mount, error) {
	parts := strings.Split(text, ":")
	m := replicate.Mount{}
	if len(parts) == 3 && (parts[2] == "rw" || parts[2] == "ro") {
		m.Writable = parts[2] == "rw"
		parts = parts[:2]
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return m, replicate.Errorf(replicate.Usage, "mount %q is not SRC:DST or SRC:DST:rw", text)
	}
	m.Source, m.Target = parts[0], parts[1]
	if local && !filepath.IsAbs(m.Source) {
		m.Source = w.abs(m.Source)
	}
	if !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) {
		return m, replicate.Errorf(replicate.Usage, "mount %q: both paths are absolute on another machine", text)
	}
	return m, nil
}

// variables adds those that are passed on by name or with a value.
func (w *world) variables(j *remote.Job, wanted []string) error {
	environ := map[string]string{}
	for _, pair := range w.environ() {
		name, value, _ := strings.Cut(pair, "=")
		environ[name] = value
	}
	for _, text := range wanted {
		name, value, given := strings.Cut(text, "=")
		if name == "" {
			return replicate.Errorf(replicate.Usage, "--env %q has no name", text)
		}
		if !given {
			var set bool
			if value, set = environ[name]; !set {
				continue
			}
		}
		j.Env[name] = value
	}
	return nil
}

// remote is the client of runs of this command.
func (w *world) remote(c *cli.Context) (*remote.Client, error) {
	program, _ := exec.LookPath("ssh") // "" if there is none
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	client := &remote.Client{
		SSH:        ssh.Options{Program: program, Transport: w.getenv("REPLICATE_SSH"), Getenv: w.getenv, Warn: func(text, hint string) { w.report("warning", &replicate.Error{Err: errors.New(text), Hint: hint}) }},
		Supervisor: []string{self, "supervise", "--locks", locksHere()}, Environ: w.environ(),
		User: w.user(), Name: host, Binary: binaryFor, Python: python.Files(), Stdout: w.stdout, Stderr: w.stderr,
		Say: w.say, Warn: func(err error) { w.report("warning", err) }, Size: size, Lasted: lasted, LeftOut: leftOut, Ago: func(t time.Time) string { return ago(w.now(), t) }, Now: w.now, ExitWait: w.exitWait(),
		Recorder: w.recorderOptions(c.String("storage-url")), Credentials: w.credentials,
		Memory: filepath.Join(w.cacheDir(), "replicate", "remote.json"),
	}
	if w.inTerminal && w.errTerminal {
		client.Confirm = w.confirm
		client.SSH.Ask = w.answer
	}
	if w.errTerminal {
		client.Progress = w.runProgress()
	}
	return client, nil
}

// locksHere is where the leases of this machine's GPUs are: those of Docker too, if this user may have locks there.
func locksHere() string {
	dir := remote.SharedLocks
	if os.Mkdir(dir, 0o777) == nil {
		_ = os.Chmod(dir, 0o1777) // whatever the umask
	}
	if unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
		return dir
	}
	return filepath.Join(os.TempDir(), "replicate-locks")
}

// binaryFor returns our program for a Linux machine: this one, or one beside it.
func binaryFor(arch string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if runtime.GOOS == "linux" && runtime.GOARCH == arch {
		return self, nil
	}
	beside := filepath.Join(filepath.Dir(self), "replicate-linux-"+arch)
	if _, err := os.Stat(beside); err != nil {
		return "", replicate.Errorf(replicate.NotFound, "the host is linux/%s, and %s is not there", arch, beside).
			WithHint("build it: GOOS=linux GOARCH=%s go build -o %s ./cmd/replicate", arch, beside)
	}
	return beside, nil
}

// runProgress shows how far something is, on one line.
func (w *world) runProgress() func(doing string, done, total int64) {
	line := w.progress("")
	return func(doing string, done, total int64) {
		switch {
		case doing == "":
			line.done()
			line = w.progress("")
		case doing != line.what:
			line.done()
			line = w.progress(doing)
			fallthrough
		default:
			line.update(done, total)
		}
	}
}
