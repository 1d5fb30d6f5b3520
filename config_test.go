package replicate

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const fullConfig = `
# everything there is
storage: gs://hooli/iris
metrics:
  - name: val_loss
    goal: minimize
    primary: true
  - {name: acc, goal: MAX}
  - name: seen
ignore: ["*.tmp", "!keep.tmp"]
env: [HF_HOME, HF_TOKEN]
python: 3.10
cuda: "12.4"
python_requirements: requirements-gpu.txt
install:
  - apt-get install -y libsndfile1
  - "echo: done"
install_script: setup.sh
image: nvidia/cuda:12.4.1-devel-ubuntu22.04
hosts:
  gpu1: dev@10.0.0.5:2222
  gpu2:
    address: ssh://dev@gpu2/run/user/1000/docker.sock
    identity: ~/.ssh/gpu
    socket: /run/user/1000/docker.sock
    mounts: [/data:/data, "/scratch:/out:rw"]
    credentials: send
`

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig("replicate.yaml", []byte(fullConfig))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Storage: "gs://hooli/iris",
		Metrics: []ConfigMetric{
			{"val_loss", Minimize, true}, {"acc", Maximize, false}, {"seen", "", false},
		},
		Ignore:             []string{"*.tmp", "!keep.tmp"},
		Env:                []string{"HF_HOME", "HF_TOKEN"},
		Python:             "3.10",
		CUDA:               "12.4",
		PythonRequirements: "requirements-gpu.txt",
		Install:            []string{"apt-get install -y libsndfile1", "echo: done"},
		InstallScript:      "setup.sh",
		Image:              "nvidia/cuda:12.4.1-devel-ubuntu22.04",
		Hosts: map[string]Host{
			"gpu1": {Address: "dev@10.0.0.5:2222"},
			"gpu2": {
				Address: "ssh://dev@gpu2/run/user/1000/docker.sock", Identity: "~/.ssh/gpu", Socket: "/run/user/1000/docker.sock",
				Mounts: []Mount{{"/data", "/data", false}, {"/scratch", "/out", true}}, Credentials: "send",
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if m := got.Primary(); m == nil || *m != (Metric{"val_loss", Minimize}) {
		t.Errorf("primary = %v", m)
	}
}

func TestParseConfigOfLittle(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# nothing\n", "---\n", "--- \n# nothing", "{}", "null", "~", "storage:\nmetrics:\nhosts:\nignore: ~\npython: null\n", "\ufeff",
	} {
		if c, err := ParseConfig("replicate.yaml", []byte(text)); err != nil || !reflect.DeepEqual(c, &Config{}) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	for text, want := range map[string]*Config{
		"\ufeffstorage: x":                      {Storage: "x"},
		"storage: x\r\nignore: [a]\r\n":         {Storage: "x", Ignore: []string{"a"}},
		"storage: ''":                           {},
		`storage: "5"`:                          {Storage: "5"},
		"python: 3\ncuda: 11.80":                {Python: "3", CUDA: "11.80"},
		"ignore: []\nmetrics: []\nhosts: {}":    {Hosts: map[string]Host{}},
		"ignore: &a [x]\ninstall: *a":           {Ignore: []string{"x"}, Install: []string{"x"}},
		"metrics: [{name: a, primary: false}]":  {Metrics: []ConfigMetric{{Name: "a"}}},
		"metrics:\n- {name: a, goal: minimise}": {Metrics: []ConfigMetric{{Name: "a", Goal: Minimize}}},
		"hosts: {here: local}":                  {Hosts: map[string]Host{"here": {Address: "local"}}},
	} {
		if c, err := ParseConfig("replicate.yaml", []byte(text)); err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, err, hint string }{
		{"unknown key", "storage: x\nmetric: []", `replicate.yaml:2: unknown key "metric"`, `did you mean "metrics"?`},
		{"unknown key, nothing near", "gpu: 1", `replicate.yaml:1: unknown key "gpu"`, ""},
		{"upper case", "Storage: x", `replicate.yaml:1: unknown key "Storage"`, `did you mean "storage"?`},
		{"key of a later version", "repository: s3://x", `replicate.yaml:1: unknown key "repository"`, `did you mean "storage"?`},
		{"key of a metric", "metrics:\n- name: a\n  gaol: min", `replicate.yaml:3: unknown key "gaol"`, `did you mean "goal"?`},
		{"key of a host", "hosts:\n  a:\n    adress: x", `replicate.yaml:3: unknown key "adress"`, `did you mean "address"?`},
		{"merge key", "<<: {storage: x}", `replicate.yaml:1: unknown key "<<"`, ""},
		{"duplicate", "storage: x\n\nstorage: y", `replicate.yaml:3: key "storage" is there twice, first in line 1`, ""},
		{"duplicate host", "hosts:\n  a: x\n  a: y", `replicate.yaml:3: key "a" is there twice, first in line 2`, ""},
		{"duplicate metric", "metrics:\n- name: a\n- name: a", `replicate.yaml:3: metric "a" is there twice`, ""},
		{"number as text", "\nstorage: 5", `replicate.yaml:2: storage must be text, not a number`, ""},
		{"bool as text", "image: true", `replicate.yaml:1: image must be text, not true or false`, ""},
		{"date as text", "storage: 2020-01-01", `replicate.yaml:1: storage must be text, not a date`, ""},
		{"list as text", "storage: [x]", `replicate.yaml:1: storage must be text, not a list`, ""},
		{"text as list", "ignore: x", `replicate.yaml:1: ignore must be a list, not text`, ""},
		{"number in a list", "ignore:\n- a\n- 5", `replicate.yaml:3: an element of ignore must be text, not a number`, ""},
		{"nothing in a list", "install:\n-\n", `replicate.yaml:2: an element of install must be text, not nothing`, ""},
		{"list as map", "hosts: [a]", `replicate.yaml:1: hosts must be a map, not a list`, ""},
		{"list as host", "hosts:\n  a: [b]", `replicate.yaml:2: host a must be a map, not a list`, ""},
		{"text as metric", "metrics: [loss]", `replicate.yaml:1: an element of metrics must be a map, not text`, ""},
		{"bool as version", "python: true", `replicate.yaml:1: python must be a version, not true or false`, ""},
		{"text as bool", "metrics: [{name: a, goal: min, primary: maybe}]", `replicate.yaml:1: primary must be true or false, not text`, ""},
		{"list as file", "- a\n- b", `replicate.yaml:1: want keys and values, got a list`, ""},
		{"text as file", "hello", `replicate.yaml:1: want keys and values, got text`, ""},
		{"map as key", "{a: b}: c", `replicate.yaml:1: a key must be text, not a map`, ""},
		{"two primaries", "metrics:\n- {name: a, goal: min, primary: true}\n- {name: b, goal: max, primary: true}",
			`replicate.yaml:3: "a" and "b" are both primary`, "at most one metric decides which commit is best"},
		{"unknown goal", "metrics:\n- name: a\n  goal: minimze", `replicate.yaml:3: unknown goal "minimze"`, `did you mean "minimize"?`},
		{"strange goal", "metrics:\n- name: a\n  goal: lower", `replicate.yaml:3: unknown goal "lower"`, "it is minimize or maximize"},
		{"primary without goal", "metrics: [{name: a, primary: true}]", `replicate.yaml:1: primary metric "a" without goal`,
			"add goal: minimize or goal: maximize"},
		{"metric without name", "metrics:\n- goal: min", `replicate.yaml:2: metric without name`, ""},
		{"second document", "storage: x\n---\nstorage: y", `replicate.yaml:2: second document`, `remove the "---"`},
		{"value of a variable", "env: [A=1]", `replicate.yaml:1: env takes names of variables, not values: "A=1"`, ""},
		{"host without address", "hosts:\n  a:\n    identity: x", `replicate.yaml:3: host "a" without address`, ""},
		{"host with nothing", "hosts:\n  a:\n", `replicate.yaml:2: a must be text, not nothing`, ""},
		{"credentials", "hosts: {a: {address: b, credentials: no}}", `replicate.yaml:1: credentials "no": want send or host`, ""},
		{"mount", "hosts: {a: {address: b, mounts: [/x]}}", `replicate.yaml:1: mount "/x": want /source:/target or /source:/target:rw`, ""},
		{"pattern without quotes", "ignore:\n  - *.tmp", `replicate.yaml:2: not YAML: a * or & that names nothing`,
			`put patterns into quotes: "*.tmp"`},
		{"exception without quotes", "ignore:\n  - !keep.tmp", `replicate.yaml:2: !keep.tmp is a tag of YAML`,
			`put patterns into quotes: "!keep.tmp"`},
		{"unknown alias", "storage: *a", `replicate.yaml: not YAML: unknown anchor 'a' referenced`, ""},
		{"alias of itself", "hosts: &a {b: *a}", `replicate.yaml:1: unknown key "b"`, ""},
		{"tab", "hosts:\n\ta: b", "replicate.yaml:2: not YAML: a tab, or text that begins with @ or `", "indent with spaces, and put such text into quotes"},
		{"not UTF-8", "storage: \xff", `replicate.yaml: not YAML: invalid leading UTF-8 octet`, ""},
		{"open list", "ignore: [a, b\nstorage: x", "replicate.yaml:1: not YAML: a list is not closed, or lacks a comma", `look for the "["`},
		{"open map", "hosts: {a: b\nstorage: x", "replicate.yaml:1: not YAML: a map is not closed, or lacks a comma", `look for the "{"`},
		{"open quote", "storage: \"x\nimage: y", "replicate.yaml:2: not YAML: a quote is not closed", "a quote inside quotes of the same kind is written twice"},
		{"two columns", "storage: x\n image: y", `replicate.yaml:2: not YAML: a second ": " in one value, or a line indented too far`,
			"put text that contains it into quotes"},
		{"outdented", "hosts:\n   a: b\n  c: d", "replicate.yaml:2: not YAML: a line is indented otherwise than its neighbours",
			"the keys of one map begin in the same column"},
		{"no space behind the colon", "storage: x\nimage:y\n", "replicate.yaml:2: not YAML: a key without a value",
			`write "key: value", with a space behind the colon`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseConfig("replicate.yaml", []byte(tt.text))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if err.Error() != tt.err || HintOf(err) != tt.hint || KindOf(err) != Usage {
				t.Errorf("got  %s (%s, hint %q)\nwant %s (hint %q)", err, KindOf(err), HintOf(err), tt.err, tt.hint)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(fullConfig))
	f.Add([]byte("a: &a [*a, *a]"))
	f.Add([]byte("hosts: &a {b: *a}"))
	f.Add([]byte("- - - ? :\n  !x &y *z"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("replicate.yaml", data)
		switch {
		case (c == nil) == (err == nil):
			t.Fatalf("%v, %v", c, err)
		case err == nil:
			return
		}
		if e, ok := err.(*Error); !ok || e.Kind != Usage || !strings.HasPrefix(e.Path, "replicate.yaml") || strings.Contains(err.Error(), "%!") {
			t.Errorf("error %#v", err)
		}
	})
}

// TestConfigIsDocumented compares docs/replicate-yaml.md with the parser: its example is right, and its table has exactly the keys there are.
func TestConfigIsDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/replicate-yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	if example == nil {
		t.Fatal("no example")
	}
	if _, err := ParseConfig("replicate.yaml", example[1]); err != nil {
		t.Errorf("the example: %v", err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllSubmatch(page, -1) {
		for _, key := range regexp.MustCompile("`(\\w+)`").FindAllSubmatch(row[1], -1) {
			documented[string(key[1])] = true
			if _, err := ParseConfig("replicate.yaml", []byte(string(key[1])+":")); err != nil {
				t.Errorf("the table: %v", err)
			}
		}
	}
	for _, key := range regexp.MustCompile(`(?m)^\w+`).FindAllString(fullConfig, -1) {
		if !documented[key] {
			t.Errorf("%q is not in the table", key)
		}
	}
}
