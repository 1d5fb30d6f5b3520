package repository

import (
	"bytes"
	"maps"
	"slices"

	"github.com/replicate/replicate"
)

// checkDigests compares the digests of a whole segment, if it has any, with the rows that they stand for: tables show what the digests say.
func (c *checker) checkDigests(segment string, records []Record) {
	said := digestLines(records)
	if len(said) == 0 {
		return
	}
	made, _ := digestsOf(records) // rows of which none can be made have a digest that is wrong
	meant := digestLines(made)
	either := maps.Clone(meant)
	maps.Copy(either, said)
	for _, id := range slices.Sorted(maps.Keys(either)) {
		if !bytes.Equal(said[id], meant[id]) {
			c.problem(Problem{Key: segment, Err: replicate.Errorf(replicate.Corrupt,
				"what it says of experiment %s is not what its rows say: ls may show wrong numbers until the object is merged", id.Short())})
		}
	}
}

// digestLines returns what the digests among records say, as this code writes it: it may have been another version that wrote them.
func digestLines(records []Record) map[replicate.ID][]byte {
	lines := map[replicate.ID][]byte{}
	for _, r := range records {
		if r.Digest == nil {
			continue
		}
		read, err := ParseRecord(r.Line)
		if err == nil {
			read, err = Record{Digest: read.Digest}.Encode()
		}
		if err == nil {
			lines[r.Digest.Experiment] = read.Line
		}
	}
	return lines
}
