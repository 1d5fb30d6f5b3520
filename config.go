package replicate

import (
	"cmp"
	"strings"
)

// ConfigNames are the names a configuration file can have.
var ConfigNames = []string{"replicate.yaml", "replicate.yml"}

// A Config is a replicate.yaml. A zero field was not written in the file.
type Config struct {
	Storage            string         // a URL, or a path relative to the file
	Metrics            []ConfigMetric // in the order of the file
	Ignore             []string       // gitignore patterns after those of .replicateignore
	Env                []string       // names of variables that are recorded, and passed on by run
	Python             string         // version, for run
	CUDA               string         // version, for run
	PythonRequirements string         // path, for run
	Install            []string       // commands, for run
	InstallScript      string         // path, for run
	Image              string         // base image, for run
	Hosts              map[string]Host
}

// A ConfigMetric is a metric of replicate.yaml.
type ConfigMetric struct {
	Name    string
	Goal    Goal // "" if not written
	Primary bool
}

// A Host is a machine to run on.
type Host struct {
	Address     string // [ssh://][user@]host[:port][/path/to/docker.sock], an alias of ssh, local, unix:///path
	Identity    string // key file
	Socket      string // of Docker
	Mounts      []Mount
	Credentials string // "send", "host" or "" for not written
}

// A Mount is a folder of a host that is seen inside its containers.
type Mount struct {
	Source, Target string
	Writable       bool
}

// Primary returns the metric that decides which commit is best, or nil.
func (c *Config) Primary() *Metric {
	for _, m := range c.Metrics {
		if m.Primary {
			return &Metric{m.Name, m.Goal}
		}
	}
	return nil
}

// ParseGoal reads a goal as people write it: min, minimize, minimise, max, maximize, maximise, in any case.
func ParseGoal(s string) (Goal, error) {
	switch strings.ToLower(s) {
	case "min", "minimize", "minimise":
		return Minimize, nil
	case "max", "maximize", "maximise":
		return Maximize, nil
	}
	goals := []string{string(Minimize), string(Maximize)}
	return "", Errorf(Usage, "unknown goal %q", s).WithHint("%s", cmp.Or(DidYouMean(s, goals), "it is minimize or maximize"))
}

// ParseConfig reads a replicate.yaml; name is how errors call it. It is strict: what it does not know is an error with the line,
// and the hint says what was probably meant. An empty file is an empty Config. An error is of kind Usage.
func ParseConfig(name string, data []byte) (*Config, error) {
	y := yamlFile{name}
	root, err := y.parse(data)
	if err != nil {
		return nil, err
	}
	c := &Config{}
	err = y.mapping(root, "", fields{
		"storage":             y.text(&c.Storage),
		"metrics":             y.list(func(key string, n *node) error { return y.metric(c, key, n) }),
		"ignore":              y.texts(&c.Ignore),
		"env":                 y.list(func(key string, n *node) error { return y.variable(c, key, n) }),
		"python":              y.version(&c.Python),
		"cuda":                y.version(&c.CUDA),
		"python_requirements": y.text(&c.PythonRequirements),
		"install":             y.texts(&c.Install),
		"install_script":      y.text(&c.InstallScript),
		"image":               y.text(&c.Image),
		"hosts":               func(key string, n *node) error { return y.hosts(c, key, n) },
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (y yamlFile) metric(c *Config, key string, n *node) error {
	var m ConfigMetric
	var goal string
	err := y.mapping(n, key, fields{
		"name":    y.text(&m.Name),
		"goal":    y.text(&goal),
		"primary": y.bool(&m.Primary),
	})
	switch {
	case err != nil:
		return err
	case m.Name == "":
		return y.errorf(n, "metric without name")
	case m.Primary && goal == "":
		return y.errorf(n, "primary metric %q without goal", m.Name).WithHint("add goal: minimize or goal: maximize")
	case m.Primary && c.Primary() != nil:
		return y.errorf(n, "%q and %q are both primary", c.Primary().Name, m.Name).WithHint("at most one metric decides which commit is best")
	}
	for _, other := range c.Metrics {
		if other.Name == m.Name {
			return y.errorf(n, "metric %q is there twice", m.Name)
		}
	}
	if goal != "" {
		g, err := ParseGoal(goal)
		if err != nil {
			return y.errorf(child(n, "goal"), "%w", err)
		}
		m.Goal = g
	}
	c.Metrics = append(c.Metrics, m)
	return nil
}

func (y yamlFile) variable(c *Config, key string, n *node) error {
	var name string
	switch err := y.text(&name)(key, n); {
	case err != nil:
		return err
	case strings.Contains(name, "="):
		return y.errorf(n, "env takes names of variables, not values: %q", name)
	case name == "":
		return y.errorf(n, "empty name of a variable")
	}
	c.Env = append(c.Env, name)
	return nil
}

func (y yamlFile) hosts(c *Config, key string, n *node) error {
	c.Hosts = map[string]Host{}
	return y.each(n, key, func(name string, n *node) error {
		h, err := y.host(name, n)
		c.Hosts[name] = h
		return err
	})
}

// host reads an address, or the map form.
func (y yamlFile) host(name string, n *node) (h Host, err error) {
	if n.isScalar() {
		err = y.text(&h.Address)(name, n)
	} else {
		err = y.mapping(n, "host "+name, fields{
			"address":     y.text(&h.Address),
			"identity":    y.text(&h.Identity),
			"socket":      y.text(&h.Socket),
			"mounts":      y.list(func(key string, n *node) error { return y.mount(&h, key, n) }),
			"credentials": y.text(&h.Credentials),
		})
	}
	switch {
	case err != nil:
		return h, err
	case h.Address == "":
		return h, y.errorf(n, "host %q without address", name)
	case h.Credentials != "" && h.Credentials != "send" && h.Credentials != "host":
		return h, y.errorf(child(n, "credentials"), "credentials %q: want send or host", h.Credentials)
	}
	return h, nil
}

// mount reads src:dst or src:dst:rw.
func (y yamlFile) mount(h *Host, key string, n *node) error {
	var text string
	if err := y.text(&text)(key, n); err != nil {
		return err
	}
	parts := strings.Split(text, ":")
	ok := len(parts) == 2 || len(parts) == 3 && parts[2] == "rw"
	if !ok || !strings.HasPrefix(parts[0], "/") || !strings.HasPrefix(parts[1], "/") {
		return y.errorf(n, "mount %q: want /source:/target or /source:/target:rw", text)
	}
	h.Mounts = append(h.Mounts, Mount{parts[0], parts[1], len(parts) == 3})
	return nil
}
