package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

// Where things are in the container of a run.
const (
	codeName   = "code"
	codeDir    = docker.RunDir + "/" + codeName
	storageDir = docker.RunDir + "/storage"
	locksDir   = "/replicate-locks"
	chunksDir  = "/replicate-chunks"
)

// restartsOfSupervisor is how often an engine starts a supervisor again that died, for jobs that are to be tried again.
const restartsOfSupervisor = 3

// describe says what the container and the job are, and has the program brought to the host.
func (r *Run) describe(ctx context.Context, j Job, env environment) (docker.Container, job.Spec, error) {
	info, err := r.host.info(ctx)
	if err != nil {
		return docker.Container{}, job.Spec{}, err
	}
	program, err := r.client.program(info.Arch)
	if err == nil {
		err = r.host.engine.Deliver(ctx, program)
	}
	if err != nil {
		return docker.Container{}, job.Spec{}, err
	}
	c, spec := r.container(j, env, info, program), r.spec(j, env)
	if err := r.host.giveGPUs(ctx, info, j.GPUs, &c, &spec); err != nil {
		return c, spec, err
	}
	return c, spec, r.host.giveOwner(ctx, info, &c, &spec)
}

func (r *Run) container(j Job, env environment, info docker.Info, program docker.Program) docker.Container {
	labels := r.labels(j, env)
	c := docker.Container{
		Name: docker.RunName(r.ID), Image: env.Reference, Argv: []string{docker.ProgramPath, "supervise"}, Labels: labels,
		Volumes: []docker.Mount{
			{Volume: docker.RunName(r.ID), Target: docker.RunDir, Labels: labels},
			{Volume: docker.LocksVolume, Target: locksDir, Labels: map[string]string{docker.LabelKind: docker.KindLocks}},
			{Volume: docker.ChunksVolume(r.host.user()), Target: chunksDir, Labels: map[string]string{docker.LabelKind: docker.KindChunks}},
			program.Mount(),
		},
		ShmSize: j.ShmSize, Ports: j.Ports,
	}
	if c.ShmSize == 0 {
		c.ShmSize = info.Memory / 2
	}
	if j.Retries > 0 {
		c.Restart = restartsOfSupervisor
	}
	for _, m := range slices.Concat(j.Target.Mounts, j.Mounts) {
		c.Binds = append(c.Binds, docker.Bind{Source: m.Source, Target: m.Target, Writable: m.Writable})
	}
	return c
}

func (r *Run) labels(j Job, env environment) map[string]string {
	return map[string]string{
		docker.LabelKind: docker.KindRun, docker.LabelExperiment: string(r.ID), docker.LabelProject: projectLabel(j.Project.Root),
		docker.LabelUser: r.client.User, docker.LabelClient: r.client.Name, docker.LabelEnv: env.Key,
		docker.LabelCreated: r.host.engine.Now().UTC().Format(time.RFC3339), docker.LabelProtocol: strconv.Itoa(job.Protocol),
	}
}

// projectLabel names a project without telling where it is.
func projectLabel(root string) string {
	sum := sha256.Sum256([]byte(root))
	return hex.EncodeToString(sum[:8])
}

func (r *Run) spec(j Job, env environment) job.Spec {
	spec := job.Spec{
		Experiment: r.ID, Argv: j.Argv, Cwd: codeDir, Storage: j.Project.StorageURL, Record: true, Commit: j.Commit, GPUs: j.GPUs,
		Timeout: job.Duration(j.Timeout), Retries: j.Retries, User: r.client.User, Host: j.Target.Host(r.client.Name), Target: r.facts.Target,
		Command: j.Command, Image: env.Reference, Created: r.session.Created(), After: r.client.Now(),
	}
	if isLocal(spec.Storage) {
		spec.Storage = "file://" + storageDir
	}
	for name := range j.Env {
		spec.Env = append(spec.Env, name)
	}
	slices.Sort(spec.Env)
	return spec
}

// giveOwner has the job run as whoever we are on the host if it writes to directories of the host: results that belong to root help nobody.
func (h *Host) giveOwner(ctx context.Context, info docker.Info, c *docker.Container, spec *job.Spec) error {
	writes := slices.ContainsFunc(c.Binds, func(b docker.Bind) bool { return b.Writable })
	if !writes || info.Rootless {
		return nil
	}
	out, err := h.shell(ctx, "id -u; id -g")
	if err != nil {
		return &replicate.Error{Op: "ask who we are on", Path: h.Name(), Err: err}
	}
	if _, err := fmt.Sscan(strings.TrimSpace(string(out)), &spec.UID, &spec.GID); err != nil {
		return &replicate.Error{Op: "ask who we are on", Path: h.Name(), Err: fmt.Errorf("%q is no answer", out)}
	}
	return nil
}

// user is our name on the host, as far as it can stand in the name of a volume.
func (h *Host) user() string {
	name := h.client.User
	if h.conn != nil {
		name = h.conn.User()
	}
	keep := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}
	return strings.Map(keep, name)
}
