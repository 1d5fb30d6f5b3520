package repository

import "time"

// LandWithin (W) is how long after the check of its packs a row may land: its Before is the time of that check plus LandWithin. It bounds
// how long a writer may stall in between; gc waits longer than this.
const LandWithin = time.Hour

// timing are the waits of garbage collection, all of them by the store's clock. The one inequality that must hold is
//
//	wait > LandWithin + error of the store's clock + time until a request ends + staleness of listings
//
// Programs with other figures than these must not work on one repository.
type timing struct {
	age  time.Duration // AGE: a younger pack is never condemned
	wait time.Duration // WAIT: from condemning packs to looking at them again
	slot time.Duration // SLOT: how long after that a sentence may land
	lag  time.Duration // how long a condemned list stays after that: listings show a sentence so late, and no sooner is the list not needed
}

// documented are the waits of the format. A pack's record lands within hours of the pack unless the machine that put it
// was offline in between: a week covers that. A day is far more than any clock, request or listing of a store is behind. A sentence has
// a quarter of a day to land, so that a collector that was suspended does no harm when it wakes up.
var documented = timing{age: 7 * 24 * time.Hour, wait: 24 * time.Hour, slot: 6 * time.Hour, lag: time.Hour}

// lapsed reports whether what was condemned at one time can no longer be sentenced at another.
func (t timing) lapsed(condemned, at time.Time) bool { return at.After(condemned.Add(t.wait + t.slot)) }
