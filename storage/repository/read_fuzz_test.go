package repository

import (
	"bytes"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// checkKind fails if a decoder's error is not one of the kinds that callers act on.
func checkKind(t *testing.T, err error, kinds ...replicate.Kind) {
	t.Helper()
	for _, kind := range kinds {
		if err == nil || replicate.KindOf(err) == kind {
			return
		}
	}
	t.Errorf("kind %s: %v", replicate.KindOf(err), err)
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"replicate":1,"id":"9f0c1d2e3f405162738495a6b7c8d9ea","created":"2026-03-04T05:06:07Z","chunking":"gear1/256Ki/1Mi/4Mi"}`))
	f.Add([]byte(`{"replicate":2,"needs":"1.2.3"}`))
	f.Add([]byte(`{"replicate":-1,"id":7}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		checkKind(t, err, replicate.Corrupt, replicate.Conflict)
		if err == nil && (c.Version != formatVersion || len(c.ID) < 32) {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzGCList(f *testing.F) {
	f.Add([]byte("{\"condemned\":\"2026-03-04T05:06:07Z\"}\n9f0c1d2e3f405162738495a6b7c8d9ea9f0c1d2e3f405162738495a6b7c8d9ea\n"), true)
	f.Add([]byte("{}\nno hash"), true)
	f.Add([]byte("\x28\xb5\x2f\xfd"), false)
	f.Fuzz(func(t *testing.T, data []byte, compress bool) {
		text := data
		if compress {
			data = encoder1().EncodeAll(data, nil)
		}
		list, err := parseGCList(data)
		checkKind(t, err, replicate.Corrupt)
		if n := bytes.Count(text, []byte{'\n'}); compress && err == nil && len(list.packs) > n {
			t.Errorf("%d packs of %d lines", len(list.packs), n)
		}
	})
}

// FuzzStream reads rows that say anything about themselves.
func FuzzStream(f *testing.F) {
	f.Add(appendFrame(nil, []byte("text of the output\n")), int64(0), int64(19), int64(5), true)
	f.Add(appendFrame(nil, appendPoint(nil, Point{Step: 1, Time: time.UnixMilli(5)})), int64(3), int64(4), int64(3), false)
	f.Add([]byte{}, int64(-1), int64(1<<62), int64(0), true)
	f.Fuzz(func(t *testing.T, frame []byte, from, to, second int64, output bool) {
		kind := MetricsStream
		if output {
			kind = OutputStream
		}
		if from < 0 || from > to { // no record has these
			return
		}
		s := (&Repository{}).Stream([]StreamRow{{Stream: kind, From: from, To: to, Inline: frame}, {Stream: kind, From: second, To: to, Inline: frame}})
		if output {
			checkKind(t, s.WriteTo(t.Context(), new(bytes.Buffer)), replicate.Corrupt)
			return
		}
		for _, err := range s.Points(t.Context()) {
			checkKind(t, err, replicate.Corrupt)
		}
	})
}
