package repository

import (
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

// TestCheckComparesDigestsWithRows has a segment whose digests are those of its rows, and then of others.
func TestCheckComparesDigestsWithRows(t *testing.T) {
	records := slices.DeleteFunc(manyRecords(t, 3), func(r Record) bool { return r.Digest != nil })
	right, err := digestsOf(records)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(right, func(a, b Record) int {
		return strings.Compare(string(a.Digest.Experiment), string(b.Digest.Experiment))
	})
	wrong := *right[1].Digest
	wrong.Commits++
	lie := encoded(t, Record{Digest: &wrong})
	stranger := encoded(t, Record{Digest: &Digest{Experiment: replicate.ID(strings.Repeat("f", 32)), Before: [2]int64{1, 1}}})
	id := func(r Record) replicate.ID { return r.Digest.Experiment }
	for _, tt := range []struct {
		name    string
		digests []Record
		wrong   []replicate.ID
	}{
		{"right", right, nil},
		{"none", nil, nil},
		{"other numbers", []Record{right[0], lie, right[2]}, []replicate.ID{id(lie)}},
		{"one is missing", right[:2], []replicate.ID{id(right[2])}},
		{"one of nothing", append(slices.Clone(right), stranger), []replicate.ID{id(stranger)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilder(t, memStore(t))
			key, object, err := encodeOrigin(1, slices.Concat(records, tt.digests), origin{digests: tt.digests != nil})
			if err != nil {
				t.Fatal(err)
			}
			b.put(key, object)
			r, err := Open(t.Context(), b.store)
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			_, err = r.Check(t.Context(), CheckOptions{}, func(p Problem) {
				if p.Key == key {
					found = append(found, p.Err.Error())
				}
			})
			if err != nil || len(found) != len(tt.wrong) {
				t.Fatalf("%q, %v", found, err)
			}
			for i, id := range tt.wrong {
				if !strings.Contains(found[i], "experiment "+id.Short()+" ") {
					t.Errorf("%q does not name %s", found[i], id.Short())
				}
			}
		})
	}
}

func encoded(t *testing.T, r Record) Record {
	t.Helper()
	r, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return r
}
