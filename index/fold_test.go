package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// history is a random set of records of few experiments, with everything that makes trouble: rows published again, deletions of
// everything, facts set twice, equal times.
func history(t *testing.T, random *rand.Rand) []repository.Record {
	t.Helper()
	var records []repository.Record
	add := func(r repository.Record) { records = append(records, r) }
	before := func() repository.Row {
		return row(start.Add(time.Duration(random.IntN(6)) * repository.LandWithin / 2))
	}
	at := func() time.Time { return start.Add(time.Duration(random.IntN(4)) * repository.LandWithin / 2) }
	value := func() replicate.Value {
		return []replicate.Value{replicate.Int(random.Int64N(3)), replicate.Float(random.Float64()), values(t, `{"x":"NaN"}`)[0].Value,
			replicate.Text("well")}[random.IntN(4)]
	}
	for i := range 3 {
		e := id(fmt.Sprint(i + 1))
		for range random.IntN(3) {
			r := experimentRecord(replicate.Experiment{ID: e, Name: fmt.Sprint("run", i), Params: replicate.Values{{Name: "p", Value: value()}}, Tags: []string{"born"}})
			if i == 0 {
				r.Experiment.Metric = &replicate.Metric{Name: "loss", Goal: replicate.Minimize}
			}
			r.Experiment.Row = before()
			add(r)
		}
		for seq := range random.IntN(5) {
			c := replicate.Commit{ID: id(fmt.Sprintf("c%d%d", i, seq)), Experiment: e, Seq: int64(seq / 2), Step: replicate.Step(random.IntN(3)),
				Time: start.Add(time.Duration(random.IntN(2)) * time.Minute), Metrics: replicate.Values{{Name: "loss", Value: value()}, {Name: "acc", Value: value()}}}
			for range 1 + random.IntN(2) {
				r := commitRecord(c)
				r.Commit.Row = before()
				add(r)
			}
			if random.IntN(4) == 0 {
				r := deleteRecord(c.ID, at())
				r.Delete.Experiment = e
				add(r)
			}
		}
		for range random.IntN(4) {
			fields := map[string]string{"status": []string{`"finished"`, `"failed"`, `"running"`}[random.IntN(3)], "future": "1"}
			fields["tags"] = fmt.Sprintf(`{"born":%t,"t%d":%t}`, random.IntN(2) == 0, random.IntN(2), random.IntN(2) == 0)
			if random.IntN(2) == 0 {
				fields["note"] = fmt.Sprintf(`"n%d"`, random.IntN(3))
			}
			add(setRecord(e, at(), fields))
		}
		for from := range random.IntN(4) {
			p := &replicate.Point{Value: replicate.Float(random.Float64()), Step: replicate.Step(random.IntN(3)), N: int64(from)}
			add(repository.Record{Stream: &repository.StreamRow{Stream: repository.MetricsStream, Experiment: e, Writer: "00000000000000aa", Seq: int64(from),
				From: int64(from), To: int64(from) + 1, Inline: []byte{1}, Row: before(),
				Summary: map[string]replicate.Summary{"loss": {First: p, Last: p, Min: p, Max: p}}}})
		}
		if random.IntN(3) == 0 {
			add(deleteRecord(e, at()))
		}
	}
	return encode(t, records...)
}

// commitPoints are points of the stream that commits made.
func commitPoints(t *testing.T, records []repository.Record) []repository.Record {
	t.Helper()
	var points []repository.Record
	for i, r := range records {
		if r.Commit == nil || i%2 == 0 {
			continue
		}
		loss, _ := r.Commit.Metrics.Get("loss")
		if !loss.IsNumber() || loss.IsNaN() {
			continue
		}
		p := &replicate.Point{Value: loss, Step: r.Commit.Step, N: int64(100 + i)}
		points = append(points, repository.Record{Stream: &repository.StreamRow{Stream: repository.MetricsStream, Experiment: r.Commit.Experiment,
			Writer: "00000000000000aa", From: p.N, To: p.N + 1, Inline: []byte{1}, Row: r.Commit.Row,
			Summary: map[string]replicate.Summary{"loss": {First: p, Last: p, Min: p, Max: p}}}})
	}
	return encode(t, points...)
}

// model is what the records mean, worked out from their definitions and nothing else.
func model(records []repository.Record) string {
	deletedAt := map[replicate.ID]time.Time{}
	for _, r := range records {
		if r.Delete != nil && r.Delete.At.After(deletedAt[r.Delete.ID]) {
			deletedAt[r.Delete.ID] = r.Delete.At
		}
	}
	newest := func(of func(r repository.Record) (replicate.ID, repository.Row, bool)) map[replicate.ID]repository.Record {
		rows := map[replicate.ID]repository.Record{}
		for _, r := range records {
			name, row, ok := of(r)
			if !ok {
				continue
			}
			if old, have := rows[name]; have {
				_, was, _ := of(old)
				if row.Before.Before(was.Before) || row.Before.Equal(was.Before) && r.Hash.String() < old.Hash.String() {
					continue
				}
			}
			rows[name] = r
		}
		return rows
	}
	dead := func(row repository.Row, ids ...replicate.ID) bool {
		return slices.ContainsFunc(ids, func(id replicate.ID) bool {
			return !deletedAt[id].IsZero() && row.Before.Before(deletedAt[id].Add(repository.LandWithin))
		})
	}
	experiments := newest(func(r repository.Record) (replicate.ID, repository.Row, bool) {
		if r.Experiment == nil {
			return "", repository.Row{}, false
		}
		return r.Experiment.ID, r.Experiment.Row, true
	})
	commits := newest(func(r repository.Record) (replicate.ID, repository.Row, bool) {
		if r.Commit == nil {
			return "", repository.Row{}, false
		}
		return r.Commit.ID, r.Commit.Row, true
	})
	var out strings.Builder
	for i := range 3 {
		e := id(fmt.Sprint(i + 1))
		var living []string
		for _, c := range commits {
			if c.Commit.Experiment == e && !dead(c.Commit.Row, e, c.Commit.ID) {
				living = append(living, string(c.Commit.ID[:3]))
			}
		}
		slices.Sort(living)
		record, known := experiments[e]
		switch {
		case known && dead(record.Experiment.Row, e):
			fmt.Fprintf(&out, "%s deleted\n", e[:1])
			continue
		case !known && (len(living) == 0 || !deletedAt[e].IsZero()):
			continue
		}
		var params replicate.Values
		tags := map[string]bool{}
		if known {
			params = record.Experiment.Params
			tags["born"] = true
		}
		status, note := "", ""
		sets := slices.DeleteFunc(slices.Clone(records), func(r repository.Record) bool { return r.Set == nil || r.Set.Experiment != e })
		slices.SortFunc(sets, func(a, b repository.Record) int {
			if c := a.Set.At.Compare(b.Set.At); c != 0 {
				return c
			}
			return strings.Compare(a.Hash.String(), b.Hash.String())
		})
		for _, r := range sets {
			for name, value := range r.Set.Fields {
				switch name {
				case "status":
					status = string(value)
				case "note":
					note = string(value)
				case "tags":
					v, _ := replicate.ParseValue(value)
					for _, tag := range v.Map() {
						tags[tag.Name] = tag.Value.Bool()
					}
				}
			}
		}
		if status == "" || status == `"running"` { // nothing beats
			status = `"lost"`
		}
		maps.DeleteFunc(tags, func(_ string, on bool) bool { return !on })
		lowest := ""
		var min *float64
		look := func(v replicate.Value) {
			if f := v.Float(); v.IsNumber() && f == f && (min == nil || f < *min) {
				min, lowest = &f, v.String()
			}
		}
		isKilled := func(p *replicate.Point) bool { // a point of dead commits only
			has, alive := false, false
			for _, c := range commits {
				if loss, _ := c.Commit.Metrics.Get("loss"); c.Commit.Experiment == e && c.Commit.Step == p.Step && loss.Equal(p.Value) {
					has, alive = true, alive || slices.Contains(living, string(c.Commit.ID[:3]))
				}
			}
			return has && !alive
		}
		for _, r := range records {
			if s := r.Stream; s != nil && s.Experiment == e && !dead(s.Row, e) && !isKilled(s.Summary["loss"].Min) {
				look(s.Summary["loss"].Min.Value)
			}
		}
		for _, c := range commits {
			if loss, ok := c.Commit.Metrics.Get("loss"); ok && slices.Contains(living, string(c.Commit.ID[:3])) && c.Commit.Experiment == e {
				look(loss)
			}
		}
		fmt.Fprintf(&out, "%s %s %s %s %v %v min %s\n", e[:1], status, note, params, slices.Sorted(maps.Keys(tags)), living, lowest)
	}
	return out.String()
}

// describe prints what the index says, in the words of model.
func (w *world) describe() string {
	w.Helper()
	all, _, err := w.List(w.Context(), Query{Sort: "id", Filters: []string{"status = deleted or created is not null or created is null"}})
	w.must(err)
	var out strings.Builder
	for _, e := range all {
		if e.Deleted {
			fmt.Fprintf(&out, "%s deleted\n", e.ID[:1])
			continue
		}
		commits, err := w.CommitsOf(w.Context(), e.ID)
		w.must(err)
		var ids []string
		for _, c := range commits {
			ids = append(ids, string(c.ID[:3]))
		}
		slices.Sort(ids)
		status, note, lowest := `"`+string(e.Status)+`"`, "", ""
		if e.Note != "" {
			note = `"` + e.Note + `"`
		}
		for _, m := range e.Metrics {
			if m.Name == "loss" && m.Min != nil {
				lowest = m.Min.Value.String()
			}
		}
		fmt.Fprintf(&out, "%s %s %s %s %v %v min %s\n", e.ID[:1], status, note, e.Params, e.Tags, ids, lowest)
	}
	return out.String()
}

// TestOrderAndRepetitionMakeNoDifference: records that arrive in any order, in any pieces and more than once make what the model says.
func TestOrderAndRepetitionMakeNoDifference(t *testing.T) {
	for seed := range uint64(25) {
		random := rand.New(rand.NewPCG(seed, 1))
		records := history(t, random)
		records = append(records, commitPoints(t, records)...)
		want := model(records)
		for _, pieces := range []int{1, 1 + random.IntN(len(records)+1)} {
			w := newWorld(t)
			arrivals := slices.Concat(records, records[:random.IntN(len(records)+1)])
			random.Shuffle(len(arrivals), func(i, j int) { arrivals[i], arrivals[j] = arrivals[j], arrivals[i] })
			for len(arrivals) > 0 {
				n := min(len(arrivals), max(1, len(records)/pieces))
				w.must(w.repository.Append(w.Context(), arrivals[:n]...))
				w.sync()
				arrivals = arrivals[n:]
				if random.IntN(5) == 0 {
					w.reopen()
				}
			}
			if got := w.describe(); got != want {
				t.Fatalf("seed %d in %d pieces:\ngot\n%swant\n%s", seed, pieces, got, want)
			}
			w.checkAgainstRebuilt()
		}
	}
}

// checkAgainstRebuilt compares the index with one that is made anew: all answers but ordinals.
func (w *world) checkAgainstRebuilt() {
	w.Helper()
	fresh := *w
	fresh.dir, fresh.Index = w.TempDir(), nil
	fresh.reopen()
	fresh.sync()
	if old, made := w.dump(), fresh.dump(); old != made {
		w.Fatalf("kept up to date:\n%s\nmade anew:\n%s", old, made)
	}
}

// dump is everything the index says of living experiments, but for ordinals and versions.
func (w *world) dump() string {
	w.Helper()
	var out []byte
	all, _, err := w.List(w.Context(), Query{Sort: "id"})
	w.must(err)
	for _, e := range all {
		full, err := w.Experiment(w.Context(), e.ID)
		w.must(err)
		for _, e := range []*Experiment{e, full} {
			out = append(e.AppendJSON(out), '\n')
			for _, m := range e.Metrics {
				for _, p := range []*replicate.Point{m.First, m.Last, m.Min, m.Max} {
					if p != nil {
						out = fmt.Appendf(out, "  %s %v %d %d %s\n", m.Name, p.Value, p.Step, p.N, p.Commit)
					}
				}
			}
		}
		commits, err := w.CommitsOf(w.Context(), e.ID)
		w.must(err)
		for _, c := range commits {
			out = append(c.AppendJSON(out), '\n')
		}
		rows, err := w.Streams(w.Context(), e.ID, repository.MetricsStream)
		w.must(err)
		slices.SortFunc(rows, func(a, b repository.StreamRow) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		out = fmt.Appendf(out, "%d rows\n", len(rows))
	}
	return string(out)
}
