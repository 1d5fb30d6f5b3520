package docker_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

func TestCreateAdoptsWhatIsThere(t *testing.T) {
	e := engine(t)
	c := named(t, "exit 3")
	create(t, e, c)
	created, err := e.Create(t.Context(), c)
	if created || err != nil {
		t.Errorf("created again: %v, %v", created, err)
	}
	start(t, e, c)
	start(t, e, c) // again: it runs, or runs once more
	code, err := e.Wait(t.Context(), c.Name)
	if code != 3 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}

func TestCreateAtTheSameTimeMakesOne(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	t.Cleanup(func() { must(t, e.Remove(context.Background(), c.Name)) })
	var wait sync.WaitGroup
	made := make(chan bool, 8)
	for range cap(made) {
		wait.Go(func() {
			created, err := e.Create(t.Context(), c)
			if err != nil {
				t.Error(err)
			}
			made <- created
		})
	}
	wait.Wait()
	close(made)
	count := 0
	for created := range made {
		if created {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d say that they created it", count)
	}
}

func TestCreateAndRemoveAtTheSameTimeEnd(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	t.Cleanup(func() { must(t, e.Remove(context.Background(), c.Name)) })
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 3 {
				if _, err := e.Create(t.Context(), c); err != nil {
					t.Error(err)
				}
				if err := e.Remove(t.Context(), c.Name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if _, err := e.Inspect(t.Context(), c.Name); replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("after the last removal: %v", err)
	}
}

func TestLifeOfAContainer(t *testing.T) {
	e := engine(t)
	c := named(t, `trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	create(t, e, c)
	before, err := e.Inspect(t.Context(), c.Name)
	must(t, err)
	if before.Phase != docker.Created || before.Name != c.Name || !before.Started.IsZero() || !before.Finished.IsZero() || before.Created.IsZero() {
		t.Errorf("created: %+v", before)
	}
	stream := attachAndStart(t, e, c)
	var out bytes.Buffer
	done := make(chan error)
	ready := make(chan bool, 1)
	go func() { done <- stream.Output(writer(func(p []byte) { out.Write(p); ready <- true }), io.Discard) }()
	<-ready
	list, err := e.List(t.Context(), map[string]string{docker.LabelProject: c.Name})
	must(t, err)
	if len(list) != 1 || list[0].Name != c.Name || list[0].Phase != docker.Running || list[0].Labels[docker.LabelKind] != docker.KindRun {
		t.Errorf("list: %+v", list)
	}
	must(t, e.Kill(t.Context(), c.Name, "TERM"))
	must(t, <-done)
	code, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	after, err := e.Inspect(t.Context(), c.Name)
	must(t, err)
	if code != 5 || after.Phase != docker.Exited || after.ExitCode != 5 || after.Finished.Before(after.Started) || after.OOMKilled || out.String() != "ready\n" {
		t.Errorf("code %d, %q, %+v", code, out.String(), after)
	}
	if tail, err := e.Tail(t.Context(), c.Name, 10); err != nil || tail != "ready\n" {
		t.Errorf("tail: %q, %v", tail, err)
	}
	must(t, e.Kill(t.Context(), c.Name, "KILL")) // nobody hears it
	must(t, e.Remove(t.Context(), c.Name))
	must(t, e.Remove(t.Context(), c.Name))
	_, err = e.Inspect(t.Context(), c.Name)
	wants(t, err, replicate.NotFound, "no such container on the host")
}

// writer is a function as an io.Writer.
type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestInputSurvivesTheClient(t *testing.T) {
	e := engine(t)
	c := named(t, `read -r a; echo "first $a"; read -r b; echo "second $b"`)
	run(t, e, c)
	for i, text := range []string{"one\n", "two\n"} {
		stream, err := e.Attach(t.Context(), c.Name)
		must(t, err)
		_, err = io.WriteString(stream, text)
		must(t, err)
		if i == 0 {
			var seen bytes.Buffer
			heard := make(chan bool, 1)
			go stream.Output(writer(func(p []byte) { seen.Write(p); heard <- true }), io.Discard)
			<-heard
		} else {
			must(t, stream.CloseWrite())
			if _, err := e.Wait(t.Context(), c.Name); err != nil {
				t.Fatal(err)
			}
		}
		stream.Close()
	}
	tail, err := e.Tail(t.Context(), c.Name, 10)
	if err != nil || tail != "first one\nsecond two\n" {
		t.Errorf("printed %q, %v", tail, err)
	}
}

func TestOutOfMemoryIsToldFromAKill(t *testing.T) {
	h, e := host(t), engine(t)
	c := named(t, `python3 -c 'x = b"x" * (200 << 20)'`)
	c.Usual = true // or it may be made again, without its limit
	create(t, e, c)
	h.Docker(t, "update", "--memory", "32m", "--memory-swap", "32m", c.Name)
	start(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	state, err := e.Inspect(t.Context(), c.Name)
	if err != nil || !state.OOMKilled {
		t.Errorf("%+v, %v", state, err)
	}
}
