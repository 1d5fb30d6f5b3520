package docker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/remotetest"
)

func TestImagesAreFoundByNameAndLabel(t *testing.T) {
	e := engine(t)
	base, err := e.Image(t.Context(), remotetest.Image)
	must(t, err)
	if !strings.HasPrefix(base.Platform, "linux/") || len(base.Env) == 0 || base.Size < 100<<20 || base.Created.IsZero() {
		t.Errorf("%+v", base)
	}
	_, err = e.Image(t.Context(), "nowhere:1")
	wants(t, err, replicate.NotFound, "no such image on the host")

	labels := map[string]string{docker.LabelKind: docker.KindEnv, docker.LabelEnv: `quo"ted $HOME \ value`}
	reference := docker.EnvImage("imported")
	must(t, e.Import(t.Context(), reference, archive(t, "hello", "world"), labels))
	t.Cleanup(func() { must(t, e.RemoveImage(context.Background(), reference)) })
	found, err := e.Images(t.Context(), map[string]string{docker.LabelKind: docker.KindEnv, docker.LabelEnv: ""})
	must(t, err)
	if len(found) != 1 || found[0].Tags[0] != reference || found[0].Labels[docker.LabelEnv] != labels[docker.LabelEnv] {
		t.Errorf("%+v", found)
	}
	named, err := e.ImagesNamed(t.Context(), "python:*")
	must(t, err)
	if len(named) != 1 || named[0].ID != base.ID {
		t.Errorf("%+v", named)
	}

	must(t, e.Tag(t.Context(), reference, "replicate-test:other"))
	must(t, e.RemoveImage(t.Context(), "replicate-test:other"))
	must(t, e.RemoveImage(t.Context(), "replicate-test:other")) // again: it is gone
	if _, err := e.Image(t.Context(), reference); err != nil {
		t.Errorf("removing one name removed the other: %v", err)
	}
}

func TestPullFromNowhere(t *testing.T) {
	err := engine(t).Pull(t.Context(), "registry.invalid/image:1", nil)
	wants(t, err, replicate.Unavailable, "pull registry.invalid/image:1: the host cannot reach the registry")
}

func TestImageTravelsBetweenEngines(t *testing.T) {
	l := remotetest.Start(t, remotetest.Options{})
	from, to := open(t, l.Hosts[0].Dial), open(t, l.Hosts[1].Dial)
	const reference = "replicate-test:travels"
	must(t, from.Import(t.Context(), reference, archive(t, "hello", "world"), nil))
	t.Cleanup(func() {
		must(t, from.RemoveImage(context.Background(), reference))
		must(t, to.RemoveImage(context.Background(), reference))
	})
	saved, err := from.Save(t.Context(), reference)
	must(t, err)
	defer saved.Close()
	must(t, to.Load(t.Context(), saved))
	sent, err := from.Image(t.Context(), reference)
	must(t, err)
	arrived, err := to.Image(t.Context(), reference)
	must(t, err)
	if sent.ID != arrived.ID {
		t.Errorf("sent %s, arrived %s", sent.ID, arrived.ID)
	}
	wants(t, to.Load(t.Context(), io.MultiReader(strings.NewReader("x"), failing{})), replicate.Internal, "the reader failed")
}

// failing is a reader that fails.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the reader failed") }

func TestCommitKeepsTheBaseConfiguration(t *testing.T) {
	e := engine(t)
	base, err := e.Image(t.Context(), remotetest.Image)
	must(t, err)
	c := named(t, "echo layer > /layer; echo gone > /scratch/gone")
	c.Env, c.Tmpfs, c.Labels = []string{"BUILD_ONLY=1"}, []string{"/scratch"}, map[string]string{docker.LabelKind: docker.KindBuild}
	run(t, e, c)
	_, err = e.Wait(t.Context(), c.Name)
	must(t, err)
	reference := docker.EnvImage("committed")
	t.Cleanup(func() { must(t, e.RemoveImage(context.Background(), reference)) })
	labels := map[string]string{docker.LabelKind: docker.KindEnv, docker.LabelEnv: "committed"}
	id, err := e.Commit(t.Context(), c.Name, docker.Commit{Reference: reference, Labels: labels, Base: base})
	must(t, err)
	must(t, e.Remove(t.Context(), c.Name))
	made, err := e.Image(t.Context(), reference)
	must(t, err)
	if made.ID != id || made.Labels[docker.LabelKind] != docker.KindEnv || len(made.Entry) > 0 || fmt.Sprint(made.Command) != fmt.Sprint(base.Command) {
		t.Errorf("%+v", made)
	}
	if !strings.Contains(fmt.Sprint(made.Env), "PATH=") {
		t.Errorf("environment: %q", made.Env)
	}
	c.Image, c.Argv, c.Tmpfs = reference, []string{"sh", "-c", "cat /layer; ls /scratch"}, nil
	run(t, e, c)
	_, err = e.Wait(t.Context(), c.Name)
	must(t, err)
	if tail, err := e.Tail(t.Context(), c.Name, 9); err != nil || tail != "layer\n" {
		t.Errorf("printed %q, %v", tail, err)
	}
	must(t, e.Remove(t.Context(), c.Name))
}
