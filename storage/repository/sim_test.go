package repository

import (
	"fmt"
	"maps"
	mrand "math/rand"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// The simulation lets writers, a stream writer and who takes over from it, mergers, readers, collectors, a deleter and an undeleter share one store. A
// scheduler lets one of them make one store operation at a time; listings are paged and late, actors stall for up to four times WAIT
// and crash. What they run is the real code of this package. After every change of the store an observer that sees everything checks that
//
//   - every acknowledged commit, and every commit some reader accepted, still has its record and all packs of that record;
//   - every acknowledged byte of a stream is covered by an effective record whose packs exist;
//
// and at the end of each reading that no reader missed a commit or a byte acknowledged before it began.
//
// One tick of the store's clock is a minute, so that LandWithin is 60. A seed decides everything.
const (
	simTick = time.Minute
	simAge  = 100 * simTick
	simWait = 150 * simTick
	simSlot = 200 * simTick
	simLag  = 20 * simTick // of listings
)

var simTiming = timing{age: simAge, wait: simWait, slot: simSlot, lag: simLag}

// maxSimSteps ends schedules that go on and on.
const maxSimSteps = 40_000

// A simActor makes one store operation at a time, when it is its turn.
type simActor struct {
	w      *simWorld
	name   string
	grant  chan bool // false: crash
	yield  chan bool // true: wants a turn; false: has ended
	frozen int64
	dead   bool

	alias map[string]string       // what the actor put under one key is under another: broken variants
	stash map[string][]simListing // likewise: listings taken too early
	shown map[string][]byte       // likewise: what the actor believes to have put
	early map[string]bool         // likewise: packs that existed when gc/ was read
}

// A simWorld is one schedule.
type simWorld struct {
	t       testing.TB
	dir     string
	r       *mrand.Rand
	mut     string // the rule that is broken, "" for none
	verbose bool

	objects map[string]simObject
	folders map[string]int // how many objects are in it
	now     int64          // ticks
	page    int
	late    int64 // listings show new objects so many ticks late at most
	changed bool  // since the last observation
	seq     int

	records map[string][]Record // of log and index objects, by key
	fail    string
	stats   map[string]int

	acked  map[replicate.ID][]replicate.Hash
	seen   map[replicate.ID][]replicate.Hash // accepted by some reader or merger
	gone   map[replicate.ID]bool             // somebody asked for its deletion
	delreq map[replicate.ID]int              // how often
	points map[streamKey]int64               // bytes acknowledged
}

// An simObject is what a key holds.
type simObject struct {
	data []byte
	mod  int64
	lag  int64 // until mod + lag it is not listed
}

func (w *simWorld) trace(f string, v ...any) {
	if w.verbose {
		w.t.Logf("%d "+f, append([]any{w.now}, v...)...)
	}
}

func (w *simWorld) failed(f string, v ...any) {
	if w.fail == "" {
		w.fail = fmt.Sprintf(f, v...)
	}
}

// Read makes the world a source of random bytes.
func (w *simWorld) Read(p []byte) (int, error) { return w.r.Read(p) }

func (w *simWorld) newID() replicate.ID {
	id, err := replicate.NewID(w)
	if err != nil {
		panic(err)
	}
	return id
}

// repository returns what an actor works with.
func (a *simActor) repository() *Repository {
	return &Repository{store: &simStore{a}, id: strings.Repeat("0", 32), timing: simTiming, serial: true}
}

// simulate runs the schedule of a seed and returns what went wrong.
func simulate(t testing.TB, seed int64, mut string, verbose bool, stats map[string]int) string {
	crash := []float64{0, 0.0003, 0.002}[seed%3]
	stall := []float64{0.001, 0.004, 0.01}[seed/3%3]
	w := &simWorld{t: t, r: mrand.New(mrand.NewSource(seed)), mut: mut, verbose: verbose, stats: stats,
		objects: map[string]simObject{}, folders: map[string]int{}, records: map[string][]Record{},
		acked: map[replicate.ID][]replicate.Hash{}, seen: map[replicate.ID][]replicate.Hash{}, gone: map[replicate.ID]bool{},
		delreq: map[replicate.ID]int{}, points: map[streamKey]int64{}}
	w.page = 1 + w.r.Intn(4)
	w.late = []int64{0, 0, int64(simLag / simTick)}[seed/9%3]
	dir, err := os.MkdirTemp(simDir, "replicate-sim-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w.dir = dir
	var all []*simActor
	start := func(name string, n int, f func(*simActor)) {
		for i := range n {
			a := &simActor{w: w, name: fmt.Sprint(name, i), grant: make(chan bool), yield: make(chan bool), alias: map[string]string{}}
			all = append(all, a)
			go func() {
				defer func() { a.yield <- false }()
				if a.turn() == nil {
					f(a)
				}
			}()
			<-a.yield
		}
	}
	start("writer", 3, w.writer)
	start("streamer", 1, w.streamer)
	start("merger", 2, w.merger)
	start("reader", 2, w.reader)
	start("collector", 2, w.collector)
	start("deleter", 1, w.deleter)
	start("undeleter", 1, w.undeleter)
	alive := slices.Clone(all)
	for steps := 0; len(alive) > 0 && w.fail == "" && steps < maxSimSteps; steps++ {
		i := w.r.Intn(len(alive))
		a := alive[i]
		w.now += int64(w.r.Intn(2))
		if w.r.Float64() < 0.004 {
			w.now += w.r.Int63n(int64(simWait / simTick)) // everyone idle for a while
		}
		if a.frozen > w.now {
			w.now++
			continue
		}
		if w.r.Float64() < stall {
			a.frozen = w.now + w.r.Int63n(4*int64(simWait/simTick))
			continue
		}
		a.grant <- w.r.Float64() >= crash
		if !<-a.yield {
			alive = slices.Delete(alive, i, i+1)
		}
		if w.changed {
			w.observe()
			w.changed = false
		}
	}
	stats["commits"] += len(w.acked)
	for _, n := range w.points {
		stats["bytes"] += int(n)
	}
	for _, a := range alive { // let the goroutines end
		a.grant <- false
		<-a.yield
	}
	return w.fail
}

// simDir is where actors keep files: in memory, if there is such a place.
var simDir = func() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return os.TempDir()
}()

// turn waits until the scheduler lets the actor do one thing.
func (a *simActor) turn() error {
	if a.dead {
		return errSimCrash
	}
	a.yield <- true
	if !<-a.grant {
		a.dead = true
		return errSimCrash
	}
	return nil
}

// TestSimulation runs schedules of the real code: some hundred, or as many as the environment says.
//
//	REPLICATE_SIM=10000 go test -run TestSimulation ./storage/repository     more schedules, from REPLICATE_SIM_FROM on
//	REPLICATE_SIM_BREAK=listorder REPLICATE_SIM=5000 …                       schedules of a broken variant, until one fails
func TestSimulation(t *testing.T) {
	n, from := envInt("REPLICATE_SIM", 200), envInt("REPLICATE_SIM_FROM", 0)
	mut := os.Getenv("REPLICATE_SIM_BREAK")
	var next atomic.Int64
	var mu sync.Mutex // guards failed, what and total
	failed, what, total := n, "", map[string]int{}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			stats := map[string]int{}
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fail := simulate(t, int64(from+i), mut, false, stats)
				mu.Lock()
				if fail != "" && i < failed {
					failed, what = i, fail
					next.Store(int64(n))
				}
				mu.Unlock()
			}
			mu.Lock()
			defer mu.Unlock()
			for k, v := range stats {
				total[k] += v
			}
		})
	}
	workers.Wait()
	switch {
	case mut == "" && failed < n:
		t.Fatalf("seed %d: %s", from+failed, what)
	case mut != "" && failed == n:
		t.Fatalf("%s was not caught", mut)
	case mut != "":
		t.Logf("%s: seed %d: %s", mut, from+failed, what)
	}
	t.Logf("%d schedules: %v", n, total)
}

// TestBrokenRulesAreCaught runs of each broken variant the seed that is known to catch it, which finds nothing wrong with the rule kept.
func TestBrokenRulesAreCaught(t *testing.T) {
	for _, v := range simVariants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			if fail := simulate(t, v.seed, v.name, false, map[string]int{}); fail == "" {
				t.Errorf("nobody noticed that %s", v.breaks)
			}
			if fail := simulate(t, v.seed, "", false, map[string]int{}); fail != "" {
				t.Error(fail)
			}
		})
	}
}

// TestSimulationRepeats: a seed decides everything.
func TestSimulationRepeats(t *testing.T) {
	var runs [2]map[string]int
	for i := range runs {
		runs[i] = map[string]int{}
		simulate(t, 4, "", false, runs[i])
	}
	if !maps.Equal(runs[0], runs[1]) {
		t.Errorf("%v and %v", runs[0], runs[1])
	}
}

func envInt(name string, otherwise int) int {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return otherwise
	}
	return n
}
