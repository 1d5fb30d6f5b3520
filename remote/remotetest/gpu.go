package remotetest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// GPU is the UUID of a host's n-th fake GPU.
func GPU(n int) string { return fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", n) }

// Driver is the version of the driver that hosts with fake GPUs have.
const Driver = "550.54.15"

// Gone is a fake GPU that is not there any more.
const Gone = -1

// SetGPUs lets a host with fake GPUs have as many as there are numbers, which say how many MiB of their memory are used.
func (h *Host) SetGPUs(t testing.TB, used ...int) {
	t.Helper()
	var list strings.Builder
	for n, mib := range used {
		if mib != Gone {
			fmt.Fprintf(&list, "%d %s %d\n", n, GPU(n), mib)
		}
	}
	if err := os.WriteFile(h.file("gpus"), []byte(list.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// GPUs gives a host fake GPUs until the test ends: a driver in /proc, an nvidia-smi that lists them, also in containers, and the hook
// that makes the real engine accept requests for them. The engine is started anew. A container knows what it got as NVIDIA_VISIBLE_DEVICES.
func (h *Host) GPUs(t testing.TB, count int) {
	t.Helper()
	h.SetGPUs(t, slices.Repeat([]int{3}, count)...)
	version := "NVRM version: NVIDIA UNIX x86_64 Kernel Module  " + Driver + "  Thu Feb 22 01:44:30 UTC 2024\n"
	err := errors.Join(
		os.MkdirAll(h.file("driver/nvidia"), 0o755),
		os.WriteFile(h.file("driver/nvidia/version"), []byte(version), 0o644),
		os.Symlink("../nvidia-smi.sh", h.file("bin/nvidia-smi")),
		os.Symlink("../nvidia-hook.sh", h.file("bin/nvidia-container-runtime-hook")),
	)
	if err != nil {
		t.Fatal(err)
	}
	h.Run(t, "mount", "--bind", inside+"/driver", "/proc/driver")
	t.Cleanup(func() {
		h.Run(t, "umount", "/proc/driver")
		if err := errors.Join(os.Remove(h.file("bin/nvidia-smi")), os.Remove(h.file("bin/nvidia-container-runtime-hook"))); err != nil {
			t.Error(err)
		}
		h.RestartDocker(t)
	})
	h.RestartDocker(t)
}
