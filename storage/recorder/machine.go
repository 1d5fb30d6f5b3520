package recorder

import (
	"context"
	"io/fs"
	"math"
	"os/exec"
	"path"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// smiDeadline is for nvidia-smi, which wakes sleeping cards.
const smiDeadline = 5 * time.Second

// readMachine describes this computer from the files of Linux below root; elsewhere it knows what the runtime knows.
func readMachine(root fs.FS) *replicate.Machine {
	m := &replicate.Machine{
		OS:     osName(root),
		Kernel: readLine(root, "proc/sys/kernel/osrelease"),
		CPU:    field(root, "proc/cpuinfo", "model name"),
		Cores:  runtime.NumCPU(), // by affinity
	}
	if limit := cpuLimit(root); limit > 0 {
		m.Cores = max(1, min(m.Cores, int(math.Ceil(limit))))
	}
	if kB, _, _ := strings.Cut(field(root, "proc/meminfo", "MemTotal"), " "); kB != "" {
		n, _ := strconv.ParseInt(kB, 10, 64)
		m.Memory = n << 10
	}
	if limit := memoryLimit(root); limit > 0 && limit < m.Memory {
		m.Memory = limit
	}
	m.GPUs, m.Driver = procGPUs(root)
	return m
}

func osName(root fs.FS) string {
	for _, file := range []string{"etc/os-release", "usr/lib/os-release"} {
		for line := range strings.Lines(readFile(root, file)) {
			if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Trim(strings.TrimSpace(name), `"'`)
			}
		}
	}
	return runtime.GOOS
}

// cpuLimit returns how many processors the cgroup may use, 0 if there is no limit.
func cpuLimit(root fs.FS) float64 {
	return smallest(root, "cpu", func(dir string) float64 {
		quota, period, ok := strings.Cut(readLine(root, path.Join(dir, "cpu.max")), " ") // version 2
		if !ok {
			quota, period = readLine(root, path.Join(dir, "cpu.cfs_quota_us")), readLine(root, path.Join(dir, "cpu.cfs_period_us"))
		}
		q, _ := strconv.ParseFloat(quota, 64) // "max", "-1" and "" are no limit
		p, _ := strconv.ParseFloat(period, 64)
		if q <= 0 || p <= 0 {
			return 0
		}
		return q / p
	})
}

// memoryLimit returns how many bytes the cgroup may use, 0 if there is no limit.
func memoryLimit(root fs.FS) int64 {
	return int64(smallest(root, "memory", func(dir string) float64 {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
			if n, err := strconv.ParseInt(readLine(root, path.Join(dir, file)), 10, 64); err == nil {
				return float64(n)
			}
		}
		return 0
	}))
}

// smallest returns the smallest limit above 0 in the cgroup of this process and those around it: each of them holds.
func smallest(root fs.FS, controller string, limit func(dir string) float64) float64 {
	least := 0.0
	for line := range strings.Lines(readFile(root, "proc/self/cgroup")) { // hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount := "sys/fs/cgroup"
		if parts[1] != "" { // version 1
			if !strings.Contains(","+parts[1]+",", ","+controller+",") {
				continue
			}
			mount = path.Join(mount, controller)
		}
		for dir := path.Join("/", parts[2]); ; dir = path.Dir(dir) {
			if l := limit(path.Join(mount, dir)); l > 0 && (least == 0 || l < least) {
				least = l
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

var driverVersion = regexp.MustCompile(`Kernel Module.*?\s(\d+\.[\d.]+)`)

// procGPUs asks the files of the NVIDIA kernel module, which answer at once.
func procGPUs(root fs.FS) (names []string, driver string) {
	cards, _ := fs.Glob(root, "proc/driver/nvidia/gpus/*/information")
	for _, card := range cards {
		if name := field(root, card, "Model"); name != "" {
			names = append(names, name)
		}
	}
	if m := driverVersion.FindStringSubmatch(readFile(root, "proc/driver/nvidia/version")); m != nil {
		driver = m[1]
	}
	return names, driver
}

// askSMI asks nvidia-smi, for machines that have it without the files: WSL, some containers.
func askSMI(ctx context.Context) (names []string, driver string) {
	ctx, cancel := context.WithTimeout(ctx, smiDeadline)
	defer cancel()
	command := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
	command.WaitDelay = time.Second
	out, err := command.Output()
	if err != nil {
		return nil, ""
	}
	for line := range strings.Lines(string(out)) {
		name, version, ok := strings.Cut(strings.TrimSpace(line), ", ")
		if ok {
			names, driver = append(names, name), version
		}
	}
	return names, driver
}

// field returns the value of the first line "name : value".
func field(root fs.FS, file, name string) string {
	for line := range strings.Lines(readFile(root, file)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func readLine(root fs.FS, file string) string {
	line, _, _ := strings.Cut(readFile(root, file), "\n")
	return strings.TrimSpace(line)
}

// readFile returns "" for what cannot be read: every fact here may be missing.
func readFile(root fs.FS, file string) string {
	data, _ := fs.ReadFile(root, strings.TrimPrefix(file, "/"))
	return string(data)
}
