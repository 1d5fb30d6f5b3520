package job

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// variables are an environment by name.
type variables map[string]string

func parseVariables(pairs []string) variables {
	v := variables{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		v[name] = value
	}
	return v
}

func (v variables) pairs() []string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(v)) {
		pairs = append(pairs, name+"="+v[name])
	}
	return pairs
}

// jobVariables is the environment of a job: what the image or the machine gives, what the job asks for, and what the library needs to join
// the experiment. Credentials of the storage are not among it.
func jobVariables(o Options, spec Spec, secrets Secrets, attempt int, gpus *[]string) variables {
	v := parseVariables(o.Env)
	if spec.UID != 0 {
		v.addUser(spec, o.Dir)
	}
	for _, name := range spec.Env {
		if value, ok := secrets.Env[name]; ok {
			v[name] = value
		}
	}
	if o.Self != "" {
		v.addOurs(o.Self)
	}
	v["PYTHONUNBUFFERED"] = "1"
	v["REPLICATE_ATTEMPT"] = strconv.Itoa(attempt)
	v["REPLICATE_EXIT_WAIT"] = "0" // the supervisor waits, and sends
	v["REPLICATE_UPLOADER"] = "none"
	for name, value := range map[string]string{
		"REPLICATE_HOST": spec.Host, "REPLICATE_USER": spec.User, "REPLICATE_STORAGE": spec.Storage,
	} {
		if value != "" {
			v[name] = value
		}
	}
	if spec.Record {
		v["REPLICATE_EXPERIMENT_ID"] = string(spec.Experiment)
	}
	if gpus != nil {
		v["CUDA_VISIBLE_DEVICES"] = strings.Join(*gpus, ",")
	}
	return v
}

// addOurs puts our programs at the end of PATH, and our Python package before others, so that both are of one version.
func (v variables) addOurs(self string) {
	bin := filepath.Dir(self)
	v["PATH"] = join(v["PATH"], bin)
	v["REPLICATE_BINARY"] = self
	if python := filepath.Join(filepath.Dir(bin), "python"); isDir(filepath.Join(python, "replicate")) {
		v["PYTHONPATH"] = join(python, v["PYTHONPATH"])
	}
}

// addUser says who a job is that does not run as the supervisor. Programs ask for a name and a home, also of a user whom nobody knows here.
func (v variables) addUser(spec Spec, dir string) {
	name, home, ok := passwd(spec.UID)
	if !ok {
		name, home = cmp.Or(spec.User, fmt.Sprintf("user%d", spec.UID)), homeDir(dir)
	}
	v["HOME"], v["USER"], v["LOGNAME"] = home, name, name
}

// homeDir is the home of a user whom the image does not know.
func homeDir(dir string) string { return filepath.Join(dir, "home") }

// passwd returns the name and the home of a user.
func passwd(uid int) (name, home string, ok bool) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return "", "", false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":") // name:password:uid:gid:comment:home:shell
		if len(fields) == 7 && fields[2] == strconv.Itoa(uid) {
			return fields[0], fields[5], true
		}
	}
	return "", "", false
}

// join joins two lists of directories, either of which may be "".
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + string(os.PathListSeparator) + b
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
