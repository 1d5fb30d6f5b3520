package job

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// gpuJob is a job that wants GPUs of a machine with two and prints what it may see until it is stopped.
func gpuJob(id, gpus string) Spec {
	spec := shell(`echo "${CUDA_VISIBLE_DEVICES-all}"; exec sleep 60`)
	spec.Experiment = replicate.ID(strings.Repeat(id, 32))
	spec.User, spec.GPUs, spec.Devices = "ann", gpus, []string{"GPU-b", "GPU-a"}
	return spec
}

func (r *run) sees() string { return strings.TrimSpace(text(r.ready().log(), Stdout)) }

func TestJobsShareTheGPUs(t *testing.T) {
	locks := "JOB_TEST_LOCKS=" + t.TempDir()
	start := func(id, gpus string) *run { return supervise(t, t.TempDir(), locks).give(gpuJob(id, gpus), Secrets{}) }
	if got := start("0", "").sees(); got != "all" {
		t.Errorf("with nothing leased a job sees %q", got)
	}
	first, second := start("1", "1"), (*run)(nil)
	if got := first.sees(); got != "GPU-a" {
		t.Errorf("the first sees %q", got)
	}
	if got := start("2", "").sees(); got != "GPU-b" {
		t.Errorf("who leases nothing sees %q", got)
	}
	both, same := start("3", "all"), start("4", "GPU-a")
	want := "1 GPU: GPU-a is held by 1111111 (ann)"
	same.until("waiting", func(s State) bool { return s.Phase == Waiting && s.Reason == want })
	both.until("waiting", func(s State) bool {
		return s.Phase == Waiting && strings.HasPrefix(s.Reason, "2 GPUs: GPU-a is held by")
	})
	if second = start("5", "1"); second.sees() != "GPU-b" {
		t.Errorf("who waits for two keeps one from others")
	}
	first.kill() // the kernel frees it
	if got := same.sees(); got != "GPU-a" || same.state().GPUs[0] != "GPU-a" {
		t.Errorf("who waited sees %q", got)
	}
	same.ask(Stop)
	same.wait()
	second.ask(Stop)
	second.wait()
	if got := both.sees(); got != "GPU-a,GPU-b" {
		t.Errorf("who waited for both sees %q", got)
	}
}

func TestALeaseIsFreeAsSoonAsTheJobHasEnded(t *testing.T) {
	locks := t.TempDir()
	spec := gpuJob("1", "2")
	spec.Argv = []string{"true"}
	if code := supervise(t, t.TempDir(), "JOB_TEST_LOCKS="+locks).give(spec, Secrets{}).wait(); code != 0 {
		t.Fatal(code)
	}
	l, err := openLeases(locks, spec.Devices)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if free := l.unleased(spec.Devices); free != nil {
		t.Errorf("free are only %v", *free)
	}
}

func TestAJobThatWaitsForAGPUCanBeStopped(t *testing.T) {
	locks := t.TempDir()
	held, err := openLeases(locks, []string{"GPU-a", "GPU-b"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.close()
	if _, err := held.acquire(t.Context(), gpuJob("1", "all"), func(string) { t.Error("it waits") }); err != nil {
		t.Fatal(err)
	}
	r := supervise(t, t.TempDir(), "JOB_TEST_LOCKS="+locks).give(gpuJob("2", "1"), Secrets{})
	r.until("waiting", func(s State) bool { return s.Phase == Waiting })
	r.ask(Interrupt)
	if code := r.wait(); code != 130 || r.state().Status != replicate.Interrupted {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}

func TestWhatNoMachineHasIsRefused(t *testing.T) {
	l, err := openLeases(t.TempDir(), []string{"GPU-a"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for _, gpus := range []string{"2", "0", "-1", "GPU-x", "GPU-a,GPU-x", "many"} {
		_, err := l.acquire(context.Background(), Spec{GPUs: gpus, Devices: []string{"GPU-a"}}, func(string) { t.Errorf("%s: it waits", gpus) })
		if replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%s: %v", gpus, err)
		}
	}
	if _, err := openLeases(t.TempDir(), []string{"../GPU"}); replicate.KindOf(err) != replicate.Usage {
		t.Error(err)
	}
}

// TestTwoRaceForOneGPU has many take and free one lease, and looks that it is held by one at a time.
func TestTwoRaceForOneGPU(t *testing.T) {
	locks := t.TempDir()
	inside := make(chan bool, 1)
	done := make(chan error)
	for range 4 {
		go func() {
			for range 50 {
				l, err := openLeases(locks, []string{"GPU-a"})
				if err != nil {
					done <- err
					return
				}
				for !l.take([]string{"GPU-a"}, 1) {
					time.Sleep(time.Microsecond)
				}
				select {
				case inside <- true:
				default:
					done <- replicate.Errorf(replicate.Conflict, "two hold it")
					return
				}
				<-inside
				l.close()
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
