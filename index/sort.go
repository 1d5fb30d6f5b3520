package index

import (
	"cmp"
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// match is an experiment that a query found, and what it is sorted by.
type found struct {
	ord     int64
	by      replicate.Value
	created int64
	id      string
}

// order is a parsed sort.
type order struct {
	name       string
	descending bool
}

// parseOrder strips one suffix: x-desc-asc sorts by x-desc.
func parseOrder(text string) order {
	if name, ok := strings.CutSuffix(text, "-desc"); ok && name != "" {
		return order{name, true}
	}
	if name, ok := strings.CutSuffix(text, "-asc"); ok && name != "" {
		return order{name, false}
	}
	if text == "" {
		text = "created"
	}
	return order{text, false}
}

// sort is total and stable: numbers, texts, bools, then lists and maps as JSON, or the reverse; NaN, then missing are last both
// ways; ties by created, then id.
func (o order) sort(all []found) {
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(o.compare(a.by, b.by), cmp.Compare(a.created, b.created), strings.Compare(a.id, b.id))
	})
}

func (o order) compare(a, b replicate.Value) int {
	c := a.Compare(b)
	if o.descending && place(a) == 0 && place(b) == 0 {
		return -c
	}
	return c
}

// place is 0 for what can be ordered, 1 for NaN, 2 for missing.
func place(v replicate.Value) int {
	switch {
	case v.IsNull():
		return 2
	case v.IsNaN():
		return 1
	}
	return 0
}
