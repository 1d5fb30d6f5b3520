package image

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/replicate/replicate"
)

// Inputs is what an environment is made of. JSON has what somebody asked for, and not what the process around it adds.
type Inputs struct {
	Image         string   `json:"image,omitempty"`        // base image, as it is
	Python        string   `json:"python,omitempty"`       // version: X.Y or X.Y.Z
	CUDA          string   `json:"cuda,omitempty"`         // version: X.Y or X.Y.Z
	Requirements  string   `json:"requirements,omitempty"` // path of a file for pip; "": requirements.txt if it is there, unless Image is given
	Install       []string `json:"install,omitempty"`
	InstallScript string   `json:"install_script,omitempty"` // path
	PythonHere    string   `json:"python_here,omitempty"`    // X.Y of python3 on the machine where that was asked for, "" if there is none

	Around `json:"-"`
}

// Around is what the process around a build adds to it.
type Around struct {
	Root    string                            // of the project: paths are relative to it
	Indexes []string                          // URLs of package indexes, with credentials if they need any: the first in place of PyPI, others beside it
	Lookup  func(name string) (string, bool)  // values for ${NAME} in requirements; nil for none
	UV      string                            // path of uv on this machine, "" if there is none
	Export  func(root string) ([]byte, error) // what uv exports of a uv.lock; nil runs UV
}

// A Plan is what an environment is to be. It says nothing of any host.
type Plan struct {
	Bases    []string // references of the base image: the first that can be had
	Local    []Local  // packages of the working directory, to be installed where the job runs, in this order
	Warnings []string

	cuda    string
	steps   []step
	secrets map[string]string // variables of the step that installs requirements
	python  string            // what the base lacks
}

// A Local is a package that requirements name as a directory.
type Local struct {
	Path     string // relative to the project's root
	Extras   string // "[test]" or ""
	Editable bool
}

// fallbackPython is the version of Python where nobody says which.
const fallbackPython = "3.12"

var (
	pythonVersion = regexp.MustCompile(`^3\.[0-9]+(\.[0-9]+)?$`)
	cudaVersion   = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?$`)
)

// New reads the files that inputs name. Errors of kind Usage are about what somebody wrote.
func New(ctx context.Context, in Inputs) (*Plan, error) {
	p := &Plan{cuda: in.CUDA}
	if err := p.chooseBase(in); err != nil {
		return nil, err
	}
	if p.python != "" {
		p.steps = append(p.steps, pythonStep(p.python))
	}
	if in.InstallScript != "" {
		script, err := os.ReadFile(filepath.Join(in.Root, in.InstallScript))
		if err != nil {
			return nil, readError("install_script", in.InstallScript, err)
		}
		p.steps = append(p.steps, scriptStep(in.InstallScript, script))
	}
	for _, line := range in.Install {
		p.steps = append(p.steps, installStep(line))
	}
	return p, p.require(ctx, in)
}

// readError is about a file that replicate.yaml names.
func readError(key, path string, err error) error {
	if os.IsNotExist(err) {
		return replicate.Errorf(replicate.Usage, "%s: %s is not there", key, path)
	}
	return &replicate.Error{Op: "read", Path: path, Kind: replicate.KindOf(err), Err: err}
}

// chooseBase decides about the base image and about Python.
func (p *Plan) chooseBase(in Inputs) error {
	switch {
	case in.Image != "" && (in.Python != "" || in.CUDA != ""):
		key := "python"
		if in.Python == "" {
			key = "cuda"
		}
		return replicate.Errorf(replicate.Usage, "image and %s exclude each other: the image decides about that", key).
			WithHint("remove one of them from replicate.yaml")
	case in.Python != "" && !pythonVersion.MatchString(in.Python):
		return replicate.Errorf(replicate.Usage, "python: %q is no version of Python 3, such as %q", in.Python, fallbackPython)
	case in.CUDA != "" && !cudaVersion.MatchString(in.CUDA):
		return replicate.Errorf(replicate.Usage, "cuda: %q is no version of CUDA, such as %q", in.CUDA, "12.4")
	}
	python := cmp.Or(in.Python, in.PythonHere, fallbackPython)
	switch {
	case in.Image != "":
		p.Bases = []string{in.Image}
	case in.CUDA != "":
		p.Bases = cudaImages(in.CUDA)
		p.python = python
	default:
		p.Bases = []string{"python:" + python + "-slim"}
	}
	return nil
}

// cudaImages are the images of a version of CUDA: not every X.Y has the same patches.
func cudaImages(version string) []string {
	versions := []string{version}
	if strings.Count(version, ".") == 1 {
		versions = []string{version + ".1", version + ".0"}
	}
	for i, v := range versions {
		versions[i] = fmt.Sprintf("nvidia/cuda:%s-devel-ubuntu22.04", v)
	}
	return versions
}

// require adds the step that installs requirements, if there are any.
func (p *Plan) require(ctx context.Context, in Inputs) error {
	text, name, err := in.requirements(ctx)
	if err != nil || name == "" {
		return err
	}
	r, err := parseRequirements(in.Root, name, text)
	if err != nil {
		return err
	}
	r.index(in.Indexes)
	p.Local = r.local
	if p.secrets, err = r.credentials.variables(); err != nil {
		return err
	}
	for _, variable := range r.variables() {
		value, ok := "", false
		if in.Lookup != nil {
			value, ok = in.Lookup(variable)
		}
		if !ok {
			return replicate.Errorf(replicate.Usage, "%s: ${%s} is not set", name, variable)
		}
		p.secrets[variable] = value
	}
	if w := mixedCUDA(p.cuda, r.lines); w != "" {
		p.Warnings = append(p.Warnings, w)
	}
	if r.count > 0 {
		p.steps = append(p.steps, requirementsStep(name, r))
	}
	return nil
}

// requirements returns the text of requirements and what people call them, "" if there are none.
func (in *Inputs) requirements(ctx context.Context) ([]byte, string, error) {
	name := in.Requirements
	if name == "" && in.Image != "" {
		return nil, "", nil
	}
	text, err := os.ReadFile(filepath.Join(in.Root, cmp.Or(name, "requirements.txt")))
	switch {
	case err == nil:
		return text, cmp.Or(name, "requirements.txt"), nil
	case name != "" || !os.IsNotExist(err):
		return nil, "", readError("python_requirements", cmp.Or(name, "requirements.txt"), err)
	}
	if _, err := os.Stat(filepath.Join(in.Root, "uv.lock")); err != nil {
		return nil, "", nil
	}
	text, err = in.export(ctx)
	return text, "uv.lock", err
}
