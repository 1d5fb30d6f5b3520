package legacy

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/legacy/legacytest"
)

// FuzzMetadata shows that no text makes a reader of metadata fail in another way than by an error, and that what is read can be written as
// records.
func FuzzMetadata(f *testing.F) {
	for key, data := range legacytest.Mixed() {
		if len(data) < 4<<10 && filepath.Ext(key) == ".json" {
			f.Add(data)
		}
	}
	f.Add([]byte(`{"id":"NaN","created":NaN,"params":{"NaN":"\\NaN","x":[-Infinity,"\"NaN"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = parseHeartbeat(data)
		if c, err := parseCommit(data); err == nil {
			if _, err := records(c.experiment, []commit{*c}); err != nil {
				t.Errorf("a commit has no record: %v", err)
			}
		}
		if e, err := parseExperiment(data); err == nil {
			if _, err := e.record(e.commits, true, time.Unix(0, 0)); err != nil {
				t.Errorf("an experiment has no record: %v", err)
			}
			if _, err := records(e.id, e.commits); err != nil {
				t.Errorf("its commits have no records: %v", err)
			}
		}
	})
}

// FuzzStrict shows that JSON of which nothing must be changed is read as it was.
func FuzzStrict(f *testing.F) {
	for _, text := range []string{`{"a":[1,2.5,null,"x"]}`, `"NaN"`, `["\\NaN","-Infinity",{"Infinity":"\"NaN"}]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want any
		if json.Unmarshal(data, &want) != nil {
			return
		}
		v, err := parse(data)
		if err != nil || v.Kind() == 0 && want != nil {
			return // deeper, or larger, than is read
		}
		if want, ok := want.(string); ok && v.Text() != want {
			t.Errorf("%q was read as %q", want, v.Text())
		}
	})
}

// FuzzTarball shows that nothing is ever written outside of the folder.
func FuzzTarball(f *testing.F) {
	f.Add(legacytest.Tarball("x", map[string]legacytest.File{"a/b": {Mode: 0o644, Data: "text"}, "c": {}}))
	f.Add(legacytest.Tarball("x", map[string]legacytest.File{"../../y": {Mode: 0o777, Data: "text"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		inner := filepath.Join(dir, "a", "b")
		if err := os.MkdirAll(inner, 0o700); err != nil {
			t.Fatal(err)
		}
		to, err := newTarget(inner)
		if err != nil {
			t.Fatal(err)
		}
		defer to.close()
		if err := extractTar(t.Context(), to, &fetched{Reader: bytes.NewReader(data)}); err == nil {
			err = to.finish()
			if err != nil {
				t.Errorf("finish: %v", err)
			}
		}
		for _, outside := range []string{dir, filepath.Dir(inner)} {
			if names, err := fs.ReadDir(os.DirFS(outside), "."); err != nil || len(names) != 1 {
				t.Errorf("%s holds %v, %v", outside, names, err)
			}
		}
	})
}
