package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// command runs a program in dir and returns its stdout. Its stderr is in the error.
func command(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLine(errs.String()))
	}
	return out.String(), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// sh runs a line of shell in dir.
func sh(dir, line string, args ...any) error {
	_, err := command(dir, "sh", "-c", fmt.Sprintf(line, args...))
	return err
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// The tree of the measurements: two files of random weights and many small files.
const (
	weights    = 100 << 20
	smallFiles = 2000
	smallSize  = 12 << 10
)

// makeTree writes the tree of 225 MB below dir.
func makeTree(dir string) error {
	random := rand.NewChaCha8([32]byte{1})
	for _, name := range []string{"base.bin", "head.bin"} {
		if err := writeRandom(filepath.Join(dir, "weights", name), weights, random); err != nil {
			return err
		}
	}
	for i := range smallFiles {
		text := make([]byte, 0, smallSize)
		for len(text) < smallSize {
			text = fmt.Appendf(text, "%d: value %x of file %d\n", len(text), random.Uint64(), i)
		}
		name := filepath.Join(dir, "data", fmt.Sprintf("%02d", i%20), fmt.Sprintf("%04d.txt", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func writeRandom(name string, n int64, random io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, random, n); err != nil {
		return err
	}
	return f.Close()
}

// changeTree overwrites a stretch of 10 % of each weight file, at a place that differs per round.
func changeTree(dir string, round int) error {
	random := rand.NewChaCha8([32]byte{2, byte(round), byte(round >> 8)})
	for _, name := range []string{"base.bin", "head.bin"} {
		f, err := os.OpenFile(filepath.Join(dir, "weights", name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		at := int64(round%9) * weights / 10
		if _, err := io.Copy(io.NewOffsetWriter(f, at), io.LimitReader(random, weights/10)); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// diskUse is the sum of the sizes of all files below dir.
func diskUse(dir string) (int64, error) {
	var total int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// A recorder is a running `replicate record`, spoken to as the Python package does.
type recorder struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
	id    int
}

func (l *lab) startRecorder(dir string) (*recorder, error) {
	cmd := exec.Command(l.binary, "record")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &recorder{cmd: cmd, in: in, lines: bufio.NewReaderSize(out, 1<<20)}
	if _, err := r.ask(map[string]any{"op": "hello", "protocol": 1, "client": "bench", "pid": os.Getpid()}); err != nil {
		return nil, err
	}
	return r, nil
}

// init begins an experiment of the directory.
func (r *recorder) init(dir string) error {
	_, err := r.ask(map[string]any{"op": "init", "cwd": dir, "argv": []string{"bench"}, "params": map[string]any{"lr": 0.1}})
	return err
}

func (r *recorder) commit(step int) error {
	_, err := r.ask(map[string]any{"op": "commit", "step": step, "metrics": map[string]any{"loss": 1.5}})
	return err
}

// log records a point. It has no answer.
func (r *recorder) log(step int) error {
	_, err := fmt.Fprintf(r.in, `{"op":"log","step":%d,"metrics":{"loss":1.5}}`+"\n", step)
	return err
}

func (r *recorder) end() error {
	if _, err := r.ask(map[string]any{"op": "end", "status": "finished"}); err != nil {
		return err
	}
	r.in.Close()
	return r.cmd.Wait()
}

// ask sends a request and waits for its answer.
func (r *recorder) ask(request map[string]any) (map[string]any, error) {
	r.id++
	request["id"] = r.id
	line, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := r.in.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	for {
		line, err := r.lines.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("recorder: %w", err)
		}
		var answer map[string]any
		if err := json.Unmarshal(line, &answer); err != nil {
			return nil, fmt.Errorf("recorder answered %q", line)
		}
		if id, ok := answer["id"].(float64); !ok || int(id) != r.id {
			continue
		}
		if answer["error"] != nil {
			return nil, fmt.Errorf("recorder: %v", answer["error"])
		}
		return answer, nil
	}
}

// peak returns the largest resident size of a finished process, in bytes.
func peak(cmd *exec.Cmd) int64 {
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return usage.Maxrss << 10
	}
	return 0
}
