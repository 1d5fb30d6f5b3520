package docker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// A Phase is where a container is in its life.
type Phase string

// The phases, in Docker's words.
const (
	Created    Phase = "created" // never started
	Running    Phase = "running"
	Paused     Phase = "paused"
	Restarting Phase = "restarting"
	Removing   Phase = "removing"
	Exited     Phase = "exited"
	Dead       Phase = "dead" // could be removed in part only
)

// A State is how a container is.
type State struct {
	ID        string
	Name      string
	Image     string // ID
	Labels    map[string]string
	Phase     Phase
	ExitCode  int  // of the latest end
	OOMKilled bool // the kernel killed in it for want of memory
	Error     string
	Restarts  int
	Created   time.Time         // by the engine's clock, as the others
	Started   time.Time         // the latest one; zero if never
	Finished  time.Time         // the latest one; zero if never
	Ports     map[uint16]uint16 // of the container → of 127.0.0.1 of the host
}

// Inspect returns how a container is. The kind of the error is NotFound if there is none of this name.
func (e *Engine) Inspect(ctx context.Context, name string) (State, error) {
	var state State
	err := e.call(ctx, "inspect container", name, func(ctx context.Context) error {
		answer, err := e.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
		if err == nil {
			state = inspected(answer.Container)
		}
		return err
	})
	return state, err
}

func inspected(c container.InspectResponse) State {
	s := State{ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Image: c.Image, Restarts: c.RestartCount, Created: moment(c.Created), Ports: map[uint16]uint16{}}
	if c.Config != nil {
		s.Labels = c.Config.Labels
	}
	if c.State != nil {
		s.Phase, s.ExitCode, s.OOMKilled, s.Error = Phase(c.State.Status), c.State.ExitCode, c.State.OOMKilled, c.State.Error
		s.Started, s.Finished = moment(c.State.StartedAt), moment(c.State.FinishedAt)
	}
	if c.NetworkSettings == nil {
		return s
	}
	for port, bindings := range c.NetworkSettings.Ports {
		for _, binding := range bindings {
			if number, err := strconv.ParseUint(binding.HostPort, 10, 16); err == nil {
				s.Ports[port.Num()] = uint16(number)
			}
		}
	}
	return s
}

// moment reads a time of the engine, which writes year 1 for never.
func moment(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// List returns the containers that have all these labels, running or not, the newest first: names, labels, phases and creation
// only. A label with an empty value matches every value.
func (e *Engine) List(ctx context.Context, labels map[string]string) ([]State, error) {
	var list []State
	err := e.call(ctx, "list containers", "", func(ctx context.Context) error {
		filters := client.Filters{}.Add("label", conditions(labels)...)
		answer, err := e.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
		for _, c := range answer.Items {
			list = append(list, summarized(c))
		}
		return err
	})
	return list, err
}

func summarized(c container.Summary) State {
	s := State{ID: c.ID, Image: c.ImageID, Labels: c.Labels, Phase: Phase(c.State), Created: time.Unix(c.Created, 0).UTC()}
	for _, name := range c.Names {
		if s.Name == "" || strings.Count(name, "/") == 1 { // others are links
			s.Name = strings.TrimPrefix(name, "/")
		}
	}
	return s
}

// Wait returns the exit code of a container when it does not run: at once if it has ended or was never started.
func (e *Engine) Wait(ctx context.Context, name string) (int, error) {
	code, err := e.wait(ctx, name, container.WaitConditionNotRunning)
	return code, err
}

func (e *Engine) wait(ctx context.Context, name string, condition container.WaitCondition) (code int, err error) {
	err = e.call(ctx, "wait for container", name, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		answer := e.api.ContainerWait(ctx, name, client.ContainerWaitOptions{Condition: condition})
		select {
		case result := <-answer.Result:
			code = int(result.StatusCode)
			if result.Error != nil && result.Error.Message != "" {
				return said(result.Error.Message)
			}
			return nil
		case err := <-answer.Error:
			return err
		}
	})
	return code, err
}

// awaitRemoval returns when a container that somebody removes is gone.
func (e *Engine) awaitRemoval(ctx context.Context, name string) error {
	_, err := e.wait(ctx, name, container.WaitConditionRemoved)
	return gone(err)
}
