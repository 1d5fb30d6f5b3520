package docker

import (
	"context"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/replicate/replicate"
)

// A Container is what a container is made of. What cannot be chosen is not as Docker has it: PID 1 is root. Standard input stays open when a client leaves. There is no terminal, no health check, no privilege, and the
// engine keeps 1 MB of output, whatever its own defaults are: enough for the last words of PID 1. Locked memory is unlimited and
// stacks have 64 MB where the host allows it.
type Container struct {
	Name    string
	Image   string
	Argv    []string // of PID 1; the image's entry point is dropped, its environment kept
	Env     []string // NAME=value; everybody who may use the engine reads it: no secrets
	Dir     string   // where PID 1 starts; "" for the image's
	Labels  map[string]string
	Binds   []Bind
	Volumes []Mount
	Tmpfs   []string // directories in memory, which no commit holds
	GPUs    GPUs
	Devices []string // of the host, such as /dev/kfd
	ShmSize int64    // of /dev/shm in bytes; 0 for 64 MB
	Ports   []uint16 // published on 127.0.0.1 of the host, each under a random port
	Restart int      // how often PID 1 is started again when it ends with another code than 0, or the engine restarts
	Network string   // "host" or "none"; "" for the engine's bridge
	Usual   bool     // limits are the engine's own: what several clients may start at once must not be made again
}

// A Bind shows a directory or file of the host in the container. It must exist.
type Bind struct {
	Source, Target string
	Writable       bool
	Make           bool // a directory that root makes if it is not there
}

// A Mount shows a volume in the container; the volume is created with the container if it is not there.
type Mount struct {
	Volume, Target string
	Labels         map[string]string
	ReadOnly       bool
}

// GPUs are those a container sees. The zero value is none.
type GPUs struct {
	All bool
	IDs []string // their UUIDs or numbers
	CDI bool     // ask by the Container Device Interface, for engines without NVIDIA's runtime
}

const stackSize = 64 << 20

// Create makes a container, or adopts the one of this name that is there: then created is false, and what it was made of counts.
// Directories of binds that are missing are NotFound, and so is the image.
func (e *Engine) Create(ctx context.Context, c Container) (created bool, err error) {
	config, host := c.config(), c.host()
	if !c.Usual && !e.unlimited.Load() {
		host.Ulimits = limits()
	}
	for {
		err = e.call(ctx, "create container", c.Name, func(ctx context.Context) error {
			_, err := e.api.ContainerCreate(ctx, client.ContainerCreateOptions{Name: c.Name, Config: config, HostConfig: host})
			return err
		})
		if replicate.KindOf(err) != replicate.Conflict {
			return err == nil, err
		}
		state, err := e.Inspect(ctx, c.Name)
		switch {
		case replicate.KindOf(err) == replicate.NotFound:
			// removed in between, or being created by somebody else: the name is taken before there is anything to inspect
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return false, err
			}
			continue
		case err != nil:
			return false, err
		case state.Phase != Removing:
			return false, nil
		}
		if err := e.awaitRemoval(ctx, c.Name); err != nil {
			return false, err
		}
	}
}

// RefusesLimits reports whether the host refused the limits of a container.
func (e *Engine) RefusesLimits() bool { return e.unlimited.Load() }

// WithoutLimits makes containers with the engine's own limits from now on: the host is known to refuse others.
func (e *Engine) WithoutLimits() { e.unlimited.Store(true) }

// limits are the ulimits of every container: RDMA and pinned memory want locked memory, deep recursion in native code wants stacks.
func limits() []*container.Ulimit {
	return []*container.Ulimit{{Name: "memlock", Soft: -1, Hard: -1}, {Name: "stack", Soft: stackSize, Hard: stackSize}}
}

func (c Container) config() *container.Config {
	exposed := network.PortSet{}
	for _, port := range c.Ports {
		exposed[tcp(port)] = struct{}{}
	}
	return &container.Config{
		Image: c.Image, Entrypoint: c.Argv, Cmd: []string{}, Env: c.Env, WorkingDir: c.Dir, Labels: c.Labels, User: "0",
		OpenStdin: true, ExposedPorts: exposed, Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
}

func (c Container) host() *container.HostConfig {
	host := &container.HostConfig{
		LogConfig:    container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "1"}},
		NetworkMode:  container.NetworkMode(c.Network),
		PortBindings: network.PortMap{},
		ShmSize:      c.ShmSize,
		Binds:        c.madeBinds(),
		Mounts:       c.mounts(),
		Resources:    container.Resources{DeviceRequests: c.GPUs.requests()},
	}
	for _, port := range c.Ports {
		host.PortBindings[tcp(port)] = []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	}
	for _, path := range c.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: path, PathInContainer: path, CgroupPermissions: "rwm"})
	}
	if c.Restart > 0 {
		host.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: c.Restart}
	}
	return host
}

// madeBinds asks for binds in the older way, which creates a directory.
func (c Container) madeBinds() (binds []string) {
	for _, b := range c.Binds {
		if b.Make {
			mode := ":ro"
			if b.Writable {
				mode = ":rw"
			}
			binds = append(binds, b.Source+":"+b.Target+mode)
		}
	}
	return binds
}

// mounts asks for binds by type: a missing directory is then an error, where the older way creates it.
func (c Container) mounts() []mount.Mount {
	var mounts []mount.Mount
	for _, b := range c.Binds {
		if b.Make {
			continue
		}
		mounts = append(mounts, mount.Mount{Type: mount.TypeBind, Source: b.Source, Target: b.Target, ReadOnly: !b.Writable})
	}
	for _, v := range c.Volumes {
		mounts = append(mounts, mount.Mount{
			Type: mount.TypeVolume, Source: v.Volume, Target: v.Target, ReadOnly: v.ReadOnly, VolumeOptions: &mount.VolumeOptions{Labels: v.Labels},
		})
	}
	for _, dir := range c.Tmpfs {
		mounts = append(mounts, mount.Mount{Type: mount.TypeTmpfs, Target: dir})
	}
	return mounts
}

func (g GPUs) requests() []container.DeviceRequest {
	ids := g.IDs
	switch {
	case !g.All && len(ids) == 0:
		return nil
	case g.All && g.CDI:
		ids = []string{"all"}
	case g.All:
		return []container.DeviceRequest{{Count: -1, Capabilities: [][]string{{"gpu"}}}}
	}
	if !g.CDI {
		return []container.DeviceRequest{{DeviceIDs: ids, Capabilities: [][]string{{"gpu"}}}}
	}
	var names []string
	for _, id := range ids {
		names = append(names, "nvidia.com/gpu="+id)
	}
	return []container.DeviceRequest{{Driver: "cdi", DeviceIDs: names}}
}

func tcp(port uint16) network.Port {
	return network.MustParsePort(strconv.Itoa(int(port)) + "/tcp")
}

// Start starts a container made from c; one that runs already is left alone.
//
// Where the host refuses its ulimits the container is made again without them, not started, and again is true: whoever was attached
// attaches once more, then calls Start once more. What was put into volumes is there. ErrNoProgram is in the chain of the error if the
// program is missing.
func (e *Engine) Start(ctx context.Context, c Container) (again bool, err error) {
	err = e.call(ctx, "start container", c.Name, func(ctx context.Context) error {
		_, err := e.api.ContainerStart(ctx, c.Name, client.ContainerStartOptions{})
		return err
	})
	if !refusesLimits(err) {
		return false, err
	}
	e.unlimited.Store(true)
	if err := e.Remove(ctx, c.Name); err != nil {
		return false, err
	}
	_, err = e.Create(ctx, c)
	return err == nil, err
}

// Restart starts a container that ran before; one that runs is left alone.
func (e *Engine) Restart(ctx context.Context, name string) error {
	return e.call(ctx, "start container", name, func(ctx context.Context) error {
		_, err := e.api.ContainerStart(ctx, name, client.ContainerStartOptions{})
		return err
	})
}

// refusesLimits reports whether a container could not be started because of limits that its host may not set.
func refusesLimits(err error) bool {
	return err != nil && strings.Contains(err.Error(), "error setting rlimit")
}

// StartAttached is Attach and Start, asked for together, and twice as fast on a far host. opened gets the stream while the container is being started: what it writes
// the engine keeps until PID 1 reads. The stream lives longer than ctx; where the container does not run in the end it is closed.
func (e *Engine) StartAttached(ctx context.Context, c Container, opened func(*Stream)) (again bool, err error) {
	var stream *Stream
	asked, attached := make(chan struct{}), make(chan error, 1)
	go func() {
		done := sync.OnceFunc(func() { close(asked) })
		defer done()
		attaching := httptrace.WithClientTrace(context.WithoutCancel(ctx), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { done() }})
		s, err := e.Attach(attaching, c.Name)
		if err == nil {
			stream = s
			opened(s)
		}
		attached <- err
	}()
	<-asked // an engine that is asked to start first answers the other only when the container runs
	again, err = e.Start(ctx, c)
	if attachErr := <-attached; err == nil && !again {
		err = attachErr
	}
	if stream != nil && (err != nil || again) {
		stream.Close()
	}
	return again, err
}

// Kill sends a signal, such as KILL, to PID 1. A container that does not run has nobody to hear it, which is no error.
func (e *Engine) Kill(ctx context.Context, name, signal string) error {
	err := e.call(ctx, "signal container", name, func(ctx context.Context) error {
		_, err := e.api.ContainerKill(ctx, name, client.ContainerKillOptions{Signal: signal})
		return err
	})
	if replicate.KindOf(err) == replicate.Conflict {
		return nil
	}
	return err
}

// Remove kills and removes a container and the volumes without a name that it has. Returns when it is gone; one that is not there is gone.
func (e *Engine) Remove(ctx context.Context, name string) error {
	err := gone(e.call(ctx, "remove container", name, func(ctx context.Context) error {
		_, err := e.api.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		return err
	}))
	if replicate.KindOf(err) == replicate.Conflict { // somebody else removes it
		return e.awaitRemoval(ctx, name)
	}
	return err
}

// gone is err, unless that says that what was to be removed does not exist.
func gone(err error) error {
	if replicate.KindOf(err) == replicate.NotFound {
		return nil
	}
	return err
}

// pause waits for a while, or returns why ctx has ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return &replicate.Error{Op: "wait for Docker", Kind: replicate.Unavailable, Err: ctx.Err()}
	case <-time.After(d):
		return nil
	}
}
