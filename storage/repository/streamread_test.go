package repository

import (
	"bytes"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// A streamWriter is the whole content of one writer's stream, from which rows are cut.
type streamWriter struct {
	*builder
	kind   StreamKind
	id     string
	before time.Time
	units  [][]byte // bytes or lines
}

func (b *builder) points(writer string, n int) *streamWriter {
	w := &streamWriter{builder: b, kind: MetricsStream, id: writer, before: b.now}
	for i := range n {
		w.units = append(w.units, appendPoint(nil, Point{Step: replicate.Step(i), Time: time.UnixMilli(int64(i)).UTC(),
			Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(1 / float64(i+1))}, {Name: "writer", Value: replicate.Text(writer)}}}))
	}
	return w
}

func (b *builder) output(writer string, text string) *streamWriter {
	w := &streamWriter{builder: b, kind: OutputStream, id: writer, before: b.now}
	for i := range text {
		w.units = append(w.units, []byte{text[i]})
	}
	return w
}

func (w *streamWriter) content(from, to int) []byte { return bytes.Join(w.units[from:to], nil) }

// row cuts a row, with its frame inline or in a pack.
func (w *streamWriter) row(from, to int, inline bool) StreamRow {
	row := StreamRow{Stream: w.kind, Writer: w.id, From: int64(from), To: int64(to), Row: Row{Before: w.before.Add(time.Duration(from))}}
	raw := w.content(from, to)
	if inline {
		row.Inline = appendFrame(nil, raw)
		return row
	}
	p := w.pack()
	ref := p.frame(kindMetrics, raw)
	ref.Pack = p.finish()
	row.Frame, row.Packs = &ref, []replicate.Hash{ref.Pack}
	return row
}

// readStream returns the content of a stream as lines or bytes.
func readStream(t *testing.T, r *Repository, rows []StreamRow) string {
	t.Helper()
	s := r.Stream(rows)
	var out bytes.Buffer
	if len(rows) > 0 && rows[0].Stream == OutputStream {
		if err := s.WriteTo(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for p, err := range s.Points(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out.Write(appendPoint(nil, p))
	}
	return out.String()
}

// randomCover cuts rows at random until every position is covered, with overlaps, repetitions and seals, and shuffles them.
func (w *streamWriter) randomCover(random *mrand.Rand) (rows []StreamRow) {
	n := len(w.units)
	for at := 0; at < n; {
		from := max(0, at-random.IntN(n/3+1)*random.IntN(2))
		to := min(n, at+1+random.IntN(n/3+1))
		rows = append(rows, w.row(from, to, random.IntN(2) == 0))
		if random.IntN(4) == 0 {
			rows = append(rows, w.row(from, to, random.IntN(2) == 0)) // published twice
		}
		at = to
	}
	if random.IntN(3) == 0 {
		rows = append(rows, w.row(0, 1+random.IntN(n), false)) // a seal
	}
	random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}

func TestAnyCoverGivesTheSameStream(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			seeds := uint64(40)
			if b.repo.local != nil {
				seeds = 2 // each pack is synced
			}
			for seed := range seeds {
				random := mrand.New(mrand.NewPCG(seed, 2))
				for _, make := range []func(id string, before time.Duration) *streamWriter{
					func(id string, before time.Duration) *streamWriter {
						w := b.points(id, 60)
						w.before = w.before.Add(before)
						return w
					},
					func(id string, before time.Duration) *streamWriter {
						w := b.output(id, string(prose(500)))
						w.before = w.before.Add(before)
						return w
					},
				} {
					first, second := make("ffff", 0), make("0000", time.Hour)
					rows := append(first.randomCover(random), second.randomCover(random)...)
					random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
					want := string(first.content(0, len(first.units))) + string(second.content(0, len(second.units)))
					if got := readStream(t, b.repo, rows); got != want {
						t.Fatalf("seed %d: got %q, want %q", seed, got, want)
					}
				}
			}
		})
	}
}

func TestGapsInOutput(t *testing.T) {
	b := newBuilder(t, memStore(t))
	w := b.output("5c", "one line\ntwo lines\nthree lines\n")
	tests := []struct {
		name string
		cuts [][2]int
		want string
	}{
		{"at a line end", [][2]int{{0, 9}, {19, 31}}, "one line\n[replicate: 10 bytes of output were not kept]\nthree lines\n"},
		{"in a line", [][2]int{{0, 3}, {19, 31}}, "one\n[replicate: 16 bytes of output were not kept]\nthree lines\n"},
		{"at the beginning", [][2]int{{9, 19}}, "[replicate: 9 bytes of output were not kept]\ntwo lines\n"},
		{"nothing", nil, ""},
		{"empty row", [][2]int{{0, 0}, {0, 9}}, "one line\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := []StreamRow{}
			for _, cut := range tt.cuts {
				rows = append(rows, w.row(cut[0], cut[1], true))
			}
			if got := readStream(t, b.repo, rows); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDamagedStream loses packs: what other rows cover is read from them, the rest is named.
func TestDamagedStream(t *testing.T) {
	b := newBuilder(t, memStore(t))
	w := b.output("5c", "one line\ntwo lines\nthree lines\n")
	seal, one, three := w.row(0, 31, false), w.row(0, 9, false), w.row(19, 31, true)
	b.store.Delete(t.Context(), packKey(seal.Packs[0]))
	var out bytes.Buffer
	err := b.repo.Stream([]StreamRow{seal, one, three}).WriteTo(t.Context(), &out)
	if want := "one line\n[replicate: 10 bytes of output cannot be read]\nthree lines\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if want := fmt.Sprintf("read output: pack %.12s… is missing", seal.Packs[0]); err == nil || err.Error() != want || replicate.KindOf(err) != replicate.Corrupt {
		t.Errorf("error %v, want %s", err, want)
	}
	two := w.row(9, 19, false)
	out.Reset()
	if err := b.repo.Stream([]StreamRow{seal, one, two, three}).WriteTo(t.Context(), &out); err != nil || out.String() != string(w.content(0, 31)) {
		t.Errorf("%q, %v", out.String(), err)
	}

	p := b.points("5c", 30)
	lost, rest := p.row(0, 10, false), p.row(10, 30, true)
	b.store.Delete(t.Context(), packKey(lost.Packs[0]))
	good, bad := 0, 0
	for _, err := range b.repo.Stream([]StreamRow{rest, lost}).Points(t.Context()) {
		if err != nil {
			bad++
		} else {
			good++
		}
	}
	if good != 20 || bad != 1 {
		t.Errorf("%d points, %d errors", good, bad)
	}
}

func TestStreamRowThatLies(t *testing.T) {
	b := newBuilder(t, memStore(t))
	w, p := b.output("5c", "one line\n"), b.points("5c", 3)
	long, many, empty, bomb := w.row(0, 9, true), p.row(0, 3, true), w.row(0, 9, true), w.row(0, 9, true)
	long.To, many.To, empty.Inline = 10, 4, []byte{}
	bomb.Inline = append([]byte{codecZstd}, "\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f"...)
	for _, row := range []StreamRow{long, empty, bomb} {
		if err := b.repo.Stream([]StreamRow{row}).WriteTo(t.Context(), new(strings.Builder)); replicate.KindOf(err) != replicate.Corrupt {
			t.Errorf("%+v: %v", row, err)
		}
	}
	for _, err := range b.repo.Stream([]StreamRow{many}).Points(t.Context()) {
		if replicate.KindOf(err) != replicate.Corrupt {
			t.Error(err)
		}
	}
}
