package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// clientScript measures the Python package from inside: import, init, log() and exit are what a training waits for.
const clientScript = `
import sys, time, atexit
t0 = time.perf_counter()
import replicate
t1 = time.perf_counter()
experiment = replicate.init(learning_rate=0.01)
t2 = time.perf_counter()
times = []
for i in range(20000):
    a = time.perf_counter()
    experiment.log(step=i, loss=0.5, accuracy=0.25, lr=0.1, grad=1.5)
    times.append(time.perf_counter() - a)
times.sort()
t3 = time.perf_counter()
experiment.stop()
t4 = time.perf_counter()
print(t1 - t0, t2 - t1, times[len(times) // 2], times[len(times) * 99 // 100], t4 - t3)
`

// clientRows measures the Python package in a directory of 2,000 unchanged files.
func clientRows(l *lab) error {
	dir := l.path("client")
	if err := makeTree(dir); err != nil {
		return err
	}
	if err := l.clear("client/weights"); err != nil {
		return err
	}
	python, err := filepath.Abs("python")
	if err != nil {
		return err
	}
	var figures [5][]float64
	for range l.rounds + 1 {
		out, err := command(dir, "env", "PYTHONPATH="+python, "REPLICATE_BINARY="+l.binary, "python3", "-c", clientScript)
		if err != nil {
			return err
		}
		for i, field := range strings.Fields(out) {
			var f float64
			fmt.Sscan(field, &f)
			figures[i] = append(figures[i], f)
		}
	}
	for i := range figures { // the first run saved the files
		figures[i] = figures[i][1:]
	}
	l.add("import replicate", floats(figures[0]), "20 ms")
	l.add("init, 2,000 unchanged files", floats(figures[1]), "100 ms")
	l.add("log() of four scalars, p50", floats(figures[2]), "20 µs")
	l.add("log() of four scalars, p99", floats(figures[3]), "1 ms")
	l.add("stop after 20,000 points", floats(figures[4]), "200 ms")
	return nil
}
