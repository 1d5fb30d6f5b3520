package replicate

import "testing"

func TestStatuses(t *testing.T) {
	final := map[Status]bool{Finished: true, Failed: true, Interrupted: true, Terminated: true, Crashed: true}
	for _, s := range Statuses {
		if s.Final() != final[s] {
			t.Errorf("%s is final: %v", s, s.Final())
		}
		delete(final, s)
	}
	if len(final) > 0 {
		t.Errorf("not in Statuses: %v", final)
	}
	if Status("").Final() {
		t.Error("no status is an end")
	}
}

func TestBest(t *testing.T) {
	low, high := &Point{Value: Int(1)}, &Point{Value: Int(2)}
	s := Summary{First: high, Last: high, Min: low, Max: high}
	if s.Best(Minimize) != low || s.Best(Maximize) != high || s.Best("") != nil {
		t.Error("Best")
	}
}
