// Command bench measures what replicate promises and prints one table: every figure beside the bar and beside the peers that are
// installed, taken in one run on one machine. `make bench` runs it.
//
// It drives the built binary from outside, as a user would, and knows no package but repository, with which it writes
// repositories of many experiments, the servers and networks of storagetest, and the hosts of remotetest.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 5, "rounds of each measurement; the median is printed")
	only := flag.String("only", "", "only the `GROUPS` named, separated by commas: commit, large, list, client, mount, visible, files, many, bucket, bucketmount, run")
	link := flag.Int64("link", 125, "`MB/S` that the link to the bucket carries each way; a machine that is busy carries less than 1 Gbit/s")
	dir := flag.String("dir", "", "work below `DIR` instead of the temporary directory")
	binary := flag.String("binary", "bin/replicate", "the `FILE` to measure")
	verbose := flag.Bool("v", false, "print every request to a bucket, when it came and when its answer began")
	flag.Parse()
	if err := bench(*rounds, *only, *dir, *binary, *link*1_000_000, *verbose); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// A lab is where the measurements are made.
type lab struct {
	dir     string
	binary  string // absolute
	rounds  int
	link    int64  // bytes a second to a bucket
	caches  string // of the user
	verbose bool
	rows    []row
}

// A row is one line of the table.
type row struct {
	what, ours, bar string
	peers           []string
}

func bench(rounds int, only, dir, binary string, link int64, verbose bool) error {
	abs, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	caches, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir, err = os.MkdirTemp(dir, "replicate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	os.Setenv("HOME", dir) // caches and indexes of the peers and of ours stay out of the user's
	os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	l := &lab{dir: dir, binary: abs, rounds: rounds, link: link, caches: caches, verbose: verbose}
	for _, group := range []struct {
		name string
		run  func(*lab) error
	}{{"commit", commitRows}, {"large", largeRows}, {"list", listRows}, {"client", clientRows}, {"mount", mountRows},
		{"visible", visibleRows}, {"files", mountMemoryRow}, {"many", mountManyRows}, {"bucket", bucketRows}, {"bucketmount", bucketMountRows}, {"run", runRows}} {
		if only != "" && !slices.Contains(strings.Split(only, ","), group.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s …\n", group.name)
		if err := group.run(l); err != nil {
			l.print() // what was measured so far
			return fmt.Errorf("%s: %w", group.name, err)
		}
	}
	l.print()
	return nil
}

func (l *lab) add(what, ours, bar string, peers ...string) {
	l.rows = append(l.rows, row{what, ours, bar, peers})
}

func (l *lab) print() {
	width := [3]int{len("what"), len("replicate"), len("bar")}
	for _, r := range l.rows {
		for i, cell := range []string{r.what, r.ours, r.bar} {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	line := func(cells ...string) {
		for i := range 3 {
			cells[i] += strings.Repeat(" ", width[i]-len([]rune(cells[i])))
		}
		fmt.Println(strings.TrimRight(strings.Join(cells, "  "), " "))
	}
	line("what", "replicate", "bar", "beside")
	for _, r := range l.rows {
		line(r.what, r.ours, r.bar, strings.Join(r.peers, ", "))
	}
}

// path returns a path below the lab.
func (l *lab) path(names ...string) string {
	return filepath.Join(append([]string{l.dir}, names...)...)
}

// A timing is the durations of several rounds of one measurement.
type timing []time.Duration

func (t timing) median() time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Clone(t)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

func (t timing) String() string { return seconds(t.median()) }

func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// A contender is one way to do a thing. Prepare is not timed.
type contender struct {
	name    string
	prepare func(round int) error
	run     func(round int) error
}

// race times the contenders in turn, A B C A B C …, so that a drift of the machine's speed hits all of them.
func (l *lab) race(contenders ...contender) (map[string]timing, error) {
	times := map[string]timing{}
	for round := range l.rounds {
		for _, c := range contenders {
			if c.prepare != nil {
				if err := c.prepare(round); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
			}
			start := time.Now()
			if err := c.run(round); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			times[c.name] = append(times[c.name], time.Since(start))
		}
	}
	return times, nil
}

// beside lists the peers of a race that took part.
func beside(times map[string]timing, names ...string) []string {
	var peers []string
	for _, name := range names {
		if t, ok := times[name]; ok {
			peers = append(peers, name+" "+t.String())
		}
	}
	return peers
}

// floats prints the median of several durations in seconds.
func floats(all []float64) string {
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	switch f := sorted[len(sorted)/2]; {
	case f < 1e-3:
		return fmt.Sprintf("%.1f µs", f*1e6)
	case f < 1:
		return fmt.Sprintf("%.1f ms", f*1e3)
	default:
		return fmt.Sprintf("%.2f s", f)
	}
}
