package remote

import (
	"context"
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
	codeDir    = docker.RunDir + "/code"
	storageDir = docker.RunDir + "/storage"
	locksDir   = "/replicate-locks"
	chunksDir  = "/replicate-chunks"
)

// restartsOfSupervisor is how often an engine starts a supervisor again that died, for jobs that are to be tried again.
const restartsOfSupervisor = 3

// describe says what the container and the job are.
func (r *Run) describe(j Job, s survey) (docker.Container, job.Spec, error) {
	c, spec := r.container(j, s), r.spec(j, s.env)
	spec.UID, spec.GID = s.owner.uid, s.owner.gid
	return c, spec, r.host.giveGPUs(s, j.GPUs, &c, &spec)
}

func (r *Run) container(j Job, s survey) docker.Container {
	labels := r.labels(j, s.env)
	c := docker.Container{
		Name: docker.RunName(r.ID), Image: s.env.Reference, Argv: []string{docker.ProgramPath, "supervise"}, Labels: labels,
		Volumes: []docker.Mount{
			{Volume: docker.RunName(r.ID), Target: docker.RunDir, Labels: labels},
			{Volume: docker.ChunksVolume(r.host.user()), Target: chunksDir, Labels: map[string]string{docker.LabelKind: docker.KindChunks}},
			s.program.Mount(),
		},
		ShmSize: j.ShmSize, Ports: j.Ports,
	}
	if locks := s.locks(j.GPUs); locks != "" {
		c.Binds = append(c.Binds, docker.Bind{Source: locks, Target: locksDir, Writable: true, Make: true})
	} else {
		c.Volumes = append(c.Volumes, docker.Mount{Volume: docker.LocksVolume, Target: locksDir, Labels: map[string]string{docker.LabelKind: docker.KindLocks}})
	}
	if c.ShmSize == 0 {
		c.ShmSize = s.info.Memory / 2
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
		docker.LabelStorage: r.client.storageLabel(j.Project.StorageURL), docker.LabelUser: r.client.User, docker.LabelClient: r.client.Name, docker.LabelEnv: env.Key,
		docker.LabelCreated: r.host.engine.Now().UTC().Format(time.RFC3339), docker.LabelProtocol: strconv.Itoa(job.Protocol),
	}
}

func (r *Run) spec(j Job, env environment) job.Spec {
	spec := job.Spec{
		Experiment: r.ID, Argv: j.Argv, Cwd: codeDir, Storage: j.Project.StorageURL, Record: true, Commit: j.Commit, GPUs: j.GPUs,
		Timeout: job.Duration(j.Timeout), Retries: j.Retries, User: r.client.User, Host: j.Target.Host(r.client.Name), Target: r.facts.Target,
		Command: j.Command, Image: env.Name, Created: r.session.Created(), After: r.client.Now(), Linger: r.pulls() && !j.Detach,
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

// An owner is whom the files of a run belong to: root if it is zero.
type owner struct{ uid, gid int }

// seeOwner asks who we are on the host, if the job writes to directories of the host: results that belong to root help nobody.
func (h *Host) seeOwner(ctx context.Context, j Job) (o owner, err error) {
	if !slices.ContainsFunc(slices.Concat(j.Target.Mounts, j.Mounts), func(m replicate.Mount) bool { return m.Writable }) {
		return o, nil
	}
	info, err := h.info(ctx)
	if err != nil || info.Rootless {
		return o, err
	}
	out, err := h.shell(ctx, "id -u; id -g")
	if err == nil {
		_, err = fmt.Sscan(string(out), &o.uid, &o.gid)
	}
	if err != nil {
		return o, &replicate.Error{Op: "ask who we are on", Path: h.Name(), Kind: replicate.KindOf(err), Err: err}
	}
	return o, nil
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
