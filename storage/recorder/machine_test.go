package recorder

import (
	"os"
	"reflect"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/replicate/replicate"
)

func TestMachine(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	base := fstest.MapFS{
		"etc/os-release":            file("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
		"proc/sys/kernel/osrelease": file("6.1.0\n"),
		"proc/cpuinfo":              file("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"),
		"proc/meminfo":              file("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
	}
	for _, tt := range []struct {
		name   string
		files  map[string]string
		change func(*replicate.Machine)
	}{
		{"plain", nil, func(*replicate.Machine) {}},
		{"cgroup 2, the outer limit is the smaller", map[string]string{
			"proc/self/cgroup":               "0::/a/b\n",
			"sys/fs/cgroup/a/b/cpu.max":      "max 100000\n",
			"sys/fs/cgroup/a/cpu.max":        "50000 100000\n",
			"sys/fs/cgroup/a/b/memory.max":   "max\n",
			"sys/fs/cgroup/a/memory.max":     "1048576\n",
			"sys/fs/cgroup/other/memory.max": "1\n",
		}, func(m *replicate.Machine) { m.Cores, m.Memory = 1, 1<<20 }},
		{"cgroup 1", map[string]string{
			"proc/self/cgroup":                             "4:memory:/x\n3:cpu,cpuacct:/x\n1:name=systemd:/\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us":         "100000\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_period_us":        "100000\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2097152\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
		}, func(m *replicate.Machine) { m.Cores, m.Memory = 1, 2<<20 }},
		{"gpus", map[string]string{
			"proc/driver/nvidia/version":                       "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Mon\nGCC version: 12\n",
			"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A100\nIRQ: 1\n",
			"proc/driver/nvidia/gpus/0000:02:00.0/information": "Model: \t\t NVIDIA A100\n",
		}, func(m *replicate.Machine) { m.GPUs, m.Driver = []string{"NVIDIA A100", "NVIDIA A100"}, "535.161.08" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, f := range base {
				root[name] = f
			}
			for name, content := range tt.files {
				root[name] = file(content)
			}
			want := &replicate.Machine{OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0", CPU: "AMD EPYC", Cores: runtime.NumCPU(), Memory: 16 << 20}
			tt.change(want)
			if got := readMachine(root); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
	t.Run("nothing to read", func(t *testing.T) {
		if got := readMachine(fstest.MapFS{}); got.OS != runtime.GOOS || got.Cores < 1 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("this one", func(t *testing.T) {
		if got := readMachine(os.DirFS("/")); got.OS == "" || got.Cores < 1 || runtime.GOOS == "linux" && (got.Kernel == "" || got.Memory < 1<<20) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestSMIThatIsNotThere(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if names, driver := askSMI(t.Context()); names != nil || driver != "" {
		t.Errorf("got %q, %q", names, driver)
	}
}

func TestSMI(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/nvidia-smi", []byte("#!/bin/sh\necho 'NVIDIA L4, 550.1'\necho 'NVIDIA L4, 550.1'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if names, driver := askSMI(t.Context()); len(names) != 2 || names[0] != "NVIDIA L4" || driver != "550.1" {
		t.Errorf("got %q, %q", names, driver)
	}
}

func TestEnvironment(t *testing.T) {
	env := environment{"NCCL_DEBUG": "INFO", "RANK": "0", "PATH": "/bin", "HF_HOME": "/x", "HF_TOKEN": long, "WORLD_SIZE_X": "1"}
	got := env.captured([]string{"HF_HOME", "HF_TOKEN", "NOT_SET"})
	want := `{"HF_HOME":"/x","HF_TOKEN":"(masked)","NCCL_DEBUG":"INFO","RANK":"0"}`
	if string(got.AppendJSON(nil)) != want {
		t.Errorf("got %s, want %s", got.AppendJSON(nil), want)
	}
}
