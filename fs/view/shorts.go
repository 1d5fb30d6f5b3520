package view

import (
	"slices"
	"strconv"

	"github.com/replicate/replicate"
)

// digitsKept is how many digits of an id are kept: those of 64 bits. No two random ids share them.
const digitsKept = 16

// shorts are the ids of all living experiments, or commits, by which they are named: the shortest unambiguous beginning, of at
// least replicate.ShortLen digits. 28 bytes each. A shorts never changes; with makes another one.
type shorts struct {
	ords   []int64  // ascending
	digits []uint64 // of the id of each
	times  []int64  // when each last changed, nanoseconds since 1970
	byID   []int32  // places in the others, by digits
	newest int64    // the latest of times
}

// A named is an experiment or a commit, the beginning of its id, and when it last changed.
type named struct {
	ord    int64
	digits uint64
	time   int64
}

// head returns the first 16 digits of an id as a number.
func head(id replicate.ID) uint64 {
	n, _ := strconv.ParseUint(string(id[:min(digitsKept, len(id))]), 16, 64)
	return n
}

// newShorts takes ownership of all.
func newShorts(all []named) *shorts {
	slices.SortFunc(all, func(a, b named) int { return int(a.ord - b.ord) })
	n := len(all)
	s := &shorts{ords: make([]int64, n), digits: make([]uint64, n), times: make([]int64, n), byID: make([]int32, n)}
	for i, one := range all {
		s.ords[i], s.digits[i], s.times[i], s.byID[i] = one.ord, one.digits, one.time, int32(i)
		s.newest = max(s.newest, one.time)
	}
	slices.SortFunc(s.byID, func(a, b int32) int {
		switch x, y := s.digits[a], s.digits[b]; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return int(a - b)
	})
	return s
}

// with returns s with some taken away and then others added. A nil s stays nil: it was never asked for.
func (s *shorts) with(added []named, gone map[int64]bool) *shorts {
	if s == nil {
		return nil
	}
	all := make([]named, 0, len(s.ords)+len(added))
	for i, ord := range s.ords {
		if !gone[ord] {
			all = append(all, named{ord, s.digits[i], s.times[i]})
		}
	}
	return newShorts(append(all, added...))
}

func (s *shorts) len() int { return len(s.ords) }

// from returns the place of the first ordinal that is at least ord.
func (s *shorts) from(ord int64) int {
	i, _ := slices.BinarySearch(s.ords, ord)
	return i
}

// name returns the shortest unambiguous beginning of the id at a place.
func (s *shorts) name(i int) string {
	at, _ := slices.BinarySearchFunc(s.byID, s.digits[i], func(j int32, d uint64) int { return compare(s.digits[j], d) })
	n := replicate.ShortLen
	for _, neighbour := range []int{at - 1, at + 1} {
		if neighbour >= 0 && neighbour < len(s.byID) {
			n = max(n, shared(s.digits[s.byID[neighbour]], s.digits[i])+1)
		}
	}
	return digitsOf(s.digits[i])[:min(n, digitsKept)]
}

// nameOf returns the name of an ordinal.
func (s *shorts) nameOf(ord int64) (string, bool) {
	i, ok := slices.BinarySearch(s.ords, ord)
	if !ok {
		return "", false
	}
	return s.name(i), true
}

// find returns the ordinal of the only id that begins with prefix, as far as the kept digits tell: more of them are the caller's
// to compare.
func (s *shorts) find(prefix string) (ord int64, ok bool) {
	if !replicate.IsPrefix(prefix) {
		return 0, false
	}
	kept := prefix[:min(len(prefix), digitsKept)]
	low := head(replicate.ID(kept + zeros[len(kept):]))
	at, _ := slices.BinarySearchFunc(s.byID, low, func(j int32, d uint64) int { return compare(s.digits[j], d) })
	if at == len(s.byID) || !s.begins(at, low, len(kept)) || at+1 < len(s.byID) && s.begins(at+1, low, len(kept)) {
		return 0, false
	}
	return s.ords[s.byID[at]], true
}

func (s *shorts) begins(at int, low uint64, n int) bool {
	return shared(s.digits[s.byID[at]], low) >= n
}

const zeros = "0000000000000000"

func digitsOf(d uint64) string {
	text := strconv.FormatUint(d, 16)
	return zeros[len(text):] + text
}

// shared is how many leading digits two have in common.
func shared(a, b uint64) int {
	n := 0
	for shift := 60; shift >= 0 && a>>shift == b>>shift; shift -= 4 {
		n++
	}
	return n
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
