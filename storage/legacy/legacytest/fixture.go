// Package legacytest makes repositories as the programs of 2020 and 2021 did, one for each of their formats, for tests. It knows the
// formats from their description and shares no code with the package that reads them.
package legacytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Root is the objects of an old repository, by key, as its programs stored them.
type Root map[string][]byte

// A Format is one of the seven.
type Format int

// The formats.
const (
	F1 Format = 1 + iota
	F2
	F3
	F4
	F5
	F6
	F7
)

// String returns F1 and so on.
func (f Format) String() string { return fmt.Sprintf("F%d", int(f)) }

// bare is JSON text that stands as it is: what Python wrote, and encoding/json would not.
type bare string

// members is a JSON object whose members have an order.
type members []any

// write appends JSON, indented as Python did it.
func write(b *strings.Builder, v any, indent string) {
	switch v := v.(type) {
	case bare:
		b.WriteString(string(v))
	case members:
		if len(v) == 0 {
			b.WriteString("{}")
			return
		}
		b.WriteString("{\n")
		for i := 0; i < len(v); i += 2 {
			fmt.Fprintf(b, "%s  %s: ", indent, quoted(v[i]))
			write(b, v[i+1], indent+"  ")
			if i+2 < len(v) {
				b.WriteString(",")
			}
			b.WriteString("\n")
		}
		b.WriteString(indent + "}")
	case []members:
		b.WriteString("[")
		for i, e := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			write(b, e, indent+"  ")
		}
		b.WriteString("]")
	default:
		b.WriteString(quoted(v))
	}
}

func quoted(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (r Root) put(key string, v any) {
	var b strings.Builder
	write(&b, v, "")
	r[key] = []byte(b.String())
}

// ExperimentID is the id of experiment 1 or 2 of a fixture.
func ExperimentID(f Format, n int) string { return strings.Repeat(fmt.Sprintf("%d%da0", f, n), 16) }

// CommitID is the id of commit 1 or 2 of an experiment.
func CommitID(f Format, experiment, n int) string {
	return strings.Repeat(fmt.Sprintf("%d%d%dc", f, experiment, n), 16)
}

// A File of a fixture.
type File struct {
	Mode int64
	Data string
}

// large is a binary that no frame holds whole.
var large = func() string {
	data := make([]byte, 7<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return string(data)
}()

// Project is the working directory when an experiment began.
func Project(experiment int) map[string]File {
	return map[string]File{
		"train.py":               {0o755, fmt.Sprintf("print(%d)\n", experiment)},
		"data/é ü/日本 語.txt":      {0o644, "unicode\n"},
		"data/empty":             {0o600, ""},
		".gitignore":             {0o644, "*.pth\n"},
		"lib/__pycache__/a.pyc":  {0o644, "kept"},
		"weights.pth":            {0o644, "before training\n"},
		"a-name/with space.json": {0o644, "{}\n"},
	}
}

// saved is what a commit saves.
func saved(experiment, n int) map[string]File {
	model := large[experiment*1000+n:][:100_000]
	if experiment == 1 && n == 2 {
		model = large
	}
	return map[string]File{
		"weights.pth":      {0o644, fmt.Sprintf("weights %d.%d\n", experiment, n)},
		"out/model.bin":    {0o644, model},
		"out/metrics.json": {0o644, fmt.Sprintf("{\"n\": %d}\n", n)},
	}
}

// View is what a commit of a fixture shows.
func View(f Format, experiment, n int) map[string]File {
	files := Project(experiment)
	maps.Copy(files, saved(experiment, n))
	if f == F2 || f == F3 { // only what is below the commit's path
		for name := range saved(experiment, n) {
			if !strings.HasPrefix(name, "out/") {
				files[name] = Project(experiment)[name]
			}
		}
	}
	return files
}

var epoch = time.Date(2020, 8, 25, 23, 58, 45, 691932000, time.UTC)

// CreatedAt is when an experiment began (n is 0) or a commit was made.
func CreatedAt(experiment, n int) time.Time {
	if experiment == 1 && n == 2 {
		return epoch.Truncate(time.Second).Add(25 * time.Hour) // Python wrote no fraction when it was 0
	}
	return epoch.Add(time.Duration(experiment)*24*time.Hour + time.Duration(n)*time.Minute)
}

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.999999Z") }

// nan is how the programs of a format wrote it.
func (f Format) nan() any {
	if f == F7 {
		return "[NaN]"
	}
	return bare("NaN")
}

func (f Format) infinity() any {
	if f == F7 {
		return "[+Infinity]"
	}
	return bare("Infinity")
}

// Fixture makes the root of one format: two experiments, of which the second has no heartbeat, with two commits each.
func Fixture(f Format) Root {
	r := Root{}
	if f >= F6 {
		r["repository.json"] = []byte(`{"version":1}`)
	}
	for experiment := 1; experiment <= 2; experiment++ {
		r.addExperiment(f, experiment)
	}
	r["metadata/heartbeats/"+ExperimentID(f, 1)+".json"] = fmt.Appendf(nil,
		`{"experiment_id": "%s", "last_heartbeat": "%s"}`, ExperimentID(f, 1), stamp(CreatedAt(1, 2)))
	return r
}

func (r Root) addExperiment(f Format, n int) {
	id := ExperimentID(f, n)
	config := members{"python", "3.8", "storage", ".replicate/storage/"}
	if f <= F3 {
		config = members{"python", "3.8", "metrics", []members{
			{"name", "accuracy", "goal", "maximize", "primary", false}, {"name", "loss", "goal", "minimize", "primary", true}},
			"storage", ".replicate/storage/"}
	}
	if f == F7 {
		config = members{"repository", "file:///home/ben/.keepsake", "storage", ""}
	}
	params := members{"learning_rate", 0.01, "layers", bare("[64, 32.0, \"NaN\"]"), "seed", bare("9007199254740993"), "name", "日本 <b>&",
		"off", nil, "text", "None", "limit", f.infinity(), "nested", members{"deep", true}}
	e := members{"id", id, "created", stamp(CreatedAt(n, 0)), "params", params, "user", "ben", "host", nil, "command", "train.py 0.01", "config", config}
	if f >= F4 {
		e = append(e, "path", ".")
	}
	var commits []members
	for k := 1; k <= 2; k++ {
		c := f.commit(n, k)
		switch {
		case f >= F5:
			commits = append(commits, c)
		case f >= F3:
			r.put("metadata/checkpoints/"+CommitID(f, n, k)+".json", c)
		default:
			r.put("metadata/commits/"+CommitID(f, n, k)+".json", c)
		}
		r.addFiles(f, n, k)
	}
	if f >= F5 {
		e = append(e, "checkpoints", commits)
	}
	switch f {
	case F6:
		e = append(e, "python_packages", members{"torch", "1.7.0", "numpy", "1.19.4"}, "replicate_version", "0.1.46")
	case F7:
		e = append(e, "python_version", "3.11.2", "python_packages", nil, "keepsake_version", "0.4.2")
	}
	r.put("metadata/experiments/"+id+".json", e)
	if f >= F5 {
		r["experiments/"+id+".tar.gz"] = Tarball(id, Project(n))
	} else if f >= F2 {
		r.addFolder("experiments/"+id, Project(n))
	}
}

func (f Format) commit(experiment, k int) members {
	c := members{"id", CommitID(f, experiment, k), "created", stamp(CreatedAt(experiment, k))}
	if f < F5 {
		c = append(c, "experiment_id", ExperimentID(f, experiment))
	}
	if f >= F2 {
		c = append(c, "path", f.path())
	}
	loss := any(1.0 / float64(k))
	if experiment == 2 && k == 2 {
		loss = f.nan()
	}
	metrics := members{"loss", loss, "accuracy", 0.5, "note", "null"}
	if f <= F3 {
		c = append(c, "labels", metrics)
	} else {
		c = append(c, "metrics", metrics, "primary_metric", members{"name", "loss", "goal", "minimize"})
	}
	if experiment == 2 && k == 1 {
		if f >= F5 {
			c = append(c, "step", nil)
		}
		return c
	}
	return append(c, "step", k)
}

// path is what commits of a format save.
func (f Format) path() string {
	if f == F2 || f == F3 {
		return "out/"
	}
	return "."
}

func (r Root) addFiles(f Format, experiment, k int) {
	id := CommitID(f, experiment, k)
	switch f {
	case F1:
		r.addFolder("commits/"+id, View(f, experiment, k))
	case F2, F3:
		files := saved(experiment, k)
		maps.DeleteFunc(files, func(name string, _ File) bool { return !strings.HasPrefix(name, "out/") })
		r.addFolder(map[Format]string{F2: "commits/", F3: "checkpoints/"}[f]+id, files)
	case F4:
		r.addFolder("checkpoints/"+id, saved(experiment, k))
	default:
		r["checkpoints/"+id+".tar.gz"] = Tarball(id, saved(experiment, k))
	}
}

func (r Root) addFolder(key string, files map[string]File) {
	for name, f := range files {
		r[path.Join(key, name)] = []byte(f.Data)
	}
}

// TarTime is the mtime of all files in tarballs.
var TarTime = time.Date(2020, 11, 1, 12, 0, 0, 0, time.UTC)

// Tarball is how F5 and later store files.
func Tarball(id string, files map[string]File) []byte {
	var b bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		panic(err)
	}
	w := tar.NewWriter(zipped)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		addEntry(w, &tar.Header{Name: id + "/" + name, Mode: f.Mode, ModTime: TarTime, Size: int64(len(f.Data))}, f.Data)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	if err := zipped.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func addEntry(w *tar.Writer, h *tar.Header, data string) {
	if err := w.WriteHeader(h); err != nil {
		panic(err)
	}
	if _, err := w.Write([]byte(data)); err != nil {
		panic(err)
	}
}

// Formats are all of them.
var Formats = []Format{F1, F2, F3, F4, F5, F6, F7}

// Mixed is a root that was upgraded in place all the way.
func Mixed() Root {
	r := Root{}
	for _, f := range Formats {
		maps.Copy(r, Fixture(f))
	}
	return r
}

// Write makes the root a folder.
func (r Root) Write(dir string) error {
	for key, data := range r {
		file := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
