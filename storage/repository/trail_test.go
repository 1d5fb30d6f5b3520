package repository

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
)

// extentsOf returns the chunks of data, found along before.
func extentsOf(t testing.TB, data []byte, forced []int64, before []Extent) (extents []Extent) {
	t.Helper()
	c := newChunker(bytes.NewReader(data), forced)
	c.follow(before)
	at := 0
	for {
		b, err := c.next()
		if err == io.EOF {
			return extents
		}
		if err != nil || !bytes.Equal(b, data[at:at+len(b)]) {
			t.Fatalf("chunk of %d bytes at %d: %v", len(b), at, err)
		}
		if c.hash() != hashOf(b) {
			t.Fatalf("the hash of the chunk at %d is another's", at)
		}
		at += len(b)
		extents = append(extents, Extent{Ref: Ref{Raw: uint32(len(b)), Hash: c.hash()}})
	}
}

// edit changes data at random places: overwrites, inserts, removes, cuts short, appends.
func edit(data []byte, rnd *rand.Rand) []byte {
	data = bytes.Clone(data)
	for range rnd.IntN(4) {
		at, n := rnd.IntN(len(data)), rnd.IntN(700<<10)
		end := min(at+n, len(data))
		switch rnd.IntN(6) {
		case 0, 1:
			fill(data[at:end], rnd.Uint64())
		case 2:
			data = slices.Insert(data, at, fill(make([]byte, n), rnd.Uint64())...)
		case 3:
			data = slices.Delete(data, at, end)
		case 4:
			data = data[:at+1]
		case 5:
			data = append(data, fill(make([]byte, n), rnd.Uint64())...)
		}
	}
	return data
}

func cutsOf(rnd *rand.Rand) (cuts []int64) {
	for range rnd.IntN(4) {
		cuts = append(cuts, rnd.Int64N(8<<20))
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

func TestFollowingChangesNoCut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 60 {
		data := fill(make([]byte, 1<<20+rnd.IntN(6<<20)), uint64(i%3))
		forced := cutsOf(rnd)
		before := extentsOf(t, data, forced, nil)
		if rnd.IntN(2) == 0 {
			forced = cutsOf(rnd)
		}
		changed := edit(data, rnd)
		want := extentsOf(t, changed, forced, nil)
		got := extentsOf(t, changed, forced, before)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: cuts at\n%v, without following\n%v", i, got, want)
		}
	}
}

func TestEndsIsWhereGearCuts(t *testing.T) {
	data := fill(make([]byte, 48<<20), 9)
	for at := 0; at < len(data); {
		var g gear
		n := g.cut(data[at:])
		if n == 0 {
			break
		}
		if !ends(data[at : at+n]) {
			t.Errorf("a chunk of %d bytes does not end where it ended", n)
		}
		if n > minChunk+5 && n < maxChunk && ends(data[at:at+n-3]) {
			t.Errorf("a chunk of %d bytes ends before it ended", n)
		}
		at += n
	}
}

func BenchmarkFollow(b *testing.B) {
	data := fill(make([]byte, 64<<20), 1)
	changed := bytes.Clone(data)
	fill(changed[20<<20:26<<20], 2)
	other := fill(make([]byte, 64<<20), 3)
	before := extentsOf(b, data, nil, nil)
	for _, tt := range []struct {
		name   string
		data   []byte
		before []Extent
	}{{"nothing", data, nil}, {"unchanged", data, before}, {"10% changed", changed, before}, {"another file", other, before}} {
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			buf := make([]byte, chunkBuffer)
			for b.Loop() {
				c := newChunker(bytes.NewReader(tt.data), nil)
				c.buf = buf
				c.follow(tt.before)
				for {
					if _, err := c.next(); err != nil {
						break
					}
					c.hash()
				}
			}
		})
	}
}
