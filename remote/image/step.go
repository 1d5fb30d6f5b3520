package image

import (
	"fmt"
	"strings"

	"github.com/replicate/replicate/remote/docker"
)

// Where things are in the container of a step. Nothing of it is in the image: it is in volumes and in memory.
const (
	stepDir   = docker.RunDir + "/step"   // files of the step
	foundDir  = docker.RunDir + "/found"  // what is installed after it
	secretDir = docker.RunDir + "/secret" // in memory
	aptDir    = docker.RunDir + "/apt"    // what apt downloads
	cacheDir  = "/replicate-cache"
	venvDir   = "/opt/replicate/python" // of an image that had no Python
)

// A step is what one layer does.
type step struct {
	name    string
	key     map[string]any // what decides about its content
	argv    []string
	files   []file
	path    string // put in front of PATH from then on
	secrets bool   // it gets credentials
}

// runStep runs a step as its arguments, and notes what is installed then. Its variables are set here and not for the container, whose variables a
// commit would keep. PIP_BREAK_SYSTEM_PACKAGES is for Debian's Python, which refuses otherwise. Credentials become a file in memory that curl, git, pip
// and uv read. apt finds archives that were downloaded before by links: its own directory of them is one builder's alone, as it locks it.
const runStep = `unset PYTHONPATH
export DEBIAN_FRONTEND=noninteractive
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_CACHE_DIR=` + cacheDir + `/pip PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
export UV_BREAK_SYSTEM_PACKAGES=1 UV_CACHE_DIR=` + cacheDir + `/uv UV_LINK_MODE=copy UV_NO_PROGRESS=1
if [ -n "$` + netrcVariable + `" ]; then
  umask 077
  printf '%s' "$` + netrcVariable + `" >` + secretDir + `/.netrc || exit 125
  umask 022
  unset ` + netrcVariable + `
  HOME=` + secretDir + ` NETRC=` + secretDir + `/.netrc
  export HOME NETRC
fi
if command -v apt-get >/dev/null 2>&1 && mkdir -p ` + cacheDir + `/apt ` + aptDir + `/partial; then
  for deb in ` + cacheDir + `/apt/*.deb; do
    if [ -f "$deb" ]; then ln -s "$deb" ` + aptDir + `/; fi
  done
  echo 'Dir::Cache::archives "` + aptDir + `"; APT::Keep-Downloaded-Packages "true";' >` + aptDir + `.conf
  APT_CONFIG=` + aptDir + `.conf
  export APT_CONFIG
fi
"$@" </dev/null || exit $?
for deb in ` + aptDir + `/*.deb; do
  if [ -f "$deb" ] && [ ! -h "$deb" ]; then
    part=` + cacheDir + `/apt/.$(uname -n)
    cp "$deb" "$part" && mv "$part" "` + cacheDir + `/apt/${deb##*/}"
  fi
done
mkdir -p ` + foundDir + `
if command -v python3 >/dev/null 2>&1; then
  python3 -m pip freeze --all >` + foundDir + `/pip 2>/dev/null || uv pip freeze >` + foundDir + `/pip 2>/dev/null
fi
if command -v dpkg-query >/dev/null 2>&1; then
  dpkg-query -W -f '${Package}=${Version}\n' >` + foundDir + `/apt 2>/dev/null
fi
exit 0
`

func (s *step) command() []string {
	return append([]string{"/bin/sh", "-c", runStep, "step"}, s.argv...)
}

func installStep(line string) step {
	return step{name: "install: " + short(line), key: map[string]any{"install": line}, argv: []string{"/bin/sh", "-c", line}}
}

// short is the beginning of a text, in one line.
func short(text string) string {
	const most = 60
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// scriptStep runs a file by its first line, or by sh if that names nothing.
func scriptStep(name string, script []byte) step {
	path := stepDir + "/install_script"
	argv := []string{path}
	if !strings.HasPrefix(string(script), "#!") {
		argv = []string{"/bin/sh", "-e", path}
	}
	return step{name: "install_script: " + name, key: map[string]any{"script": digest(script)}, argv: argv, files: []file{{"install_script", script}}}
}

// pipInstall prefers uv, which is faster, where the image has it.
const pipInstall = `if command -v uv >/dev/null 2>&1; then
  if [ -n "$VIRTUAL_ENV" ] || [ -e ` + venvDir + ` ]; then exec uv pip install --python "$(command -v python3)" -r "$1"; fi
  exec uv pip install --system -r "$1"
fi
exec python3 -m pip install -r "$1"
`

func requirementsStep(name string, r *requirements) step {
	files := append([]file{{"requirements.txt", []byte(r.text())}}, r.files...)
	if len(r.constraints) > 0 {
		files = append(files, file{"constraints.txt", []byte(strings.Join(r.constraints, "\n") + "\n")})
	}
	contents := map[string]string{}
	for _, f := range files {
		contents[f.name] = digest(f.data)
	}
	plural := "s"
	if r.count == 1 {
		plural = ""
	}
	return step{
		name:    fmt.Sprintf("%s: %d package%s", name, r.count, plural),
		key:     map[string]any{"requirements": contents, "installer": "uv or pip of the image"},
		argv:    []string{"/bin/sh", "-c", pipInstall, "pip", stepDir + "/requirements.txt"},
		files:   files,
		secrets: true,
	}
}

// installPython makes a virtual environment of the version $1: by the distribution's Python if that has it, else by one that uv downloads.
const installPython = `set -e
apt-get update
apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv
rm -rf /var/lib/apt/lists/*
have=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$have" = "$1" ]; then
  exec python3 -m venv ` + venvDir + `
fi
python3 -m venv /opt/replicate/uv
/opt/replicate/uv/bin/pip install uv
UV_PYTHON_INSTALL_DIR=/opt/replicate/pythons /opt/replicate/uv/bin/uv venv --seed --python-preference only-managed --python "$1" ` + venvDir + `
`

func pythonStep(version string) step {
	return step{
		name: "python " + version, key: map[string]any{"python": version}, argv: []string{"/bin/sh", "-c", installPython, "python", version},
		path: venvDir + "/bin",
	}
}
