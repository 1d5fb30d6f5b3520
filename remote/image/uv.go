package image

import (
	"context"
	"errors"
	"os/exec"
	"strings"

	"github.com/replicate/replicate"
)

// export returns a uv.lock as requirements with pinned versions. uv alone reads that file: it changes with uv.
func (in *Inputs) export(ctx context.Context) ([]byte, error) {
	if in.Export != nil {
		return in.Export(in.Root)
	}
	if in.UV == "" {
		return nil, replicate.Errorf(replicate.Usage, "there is a uv.lock and no requirements.txt, and uv is not installed here").
			WithHint("install uv, or name a file for pip in python_requirements of replicate.yaml")
	}
	cmd := exec.CommandContext(ctx, in.UV, "export", "--frozen", "--quiet", "--no-emit-project", "--format", "requirements-txt")
	cmd.Dir = in.Root
	text, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		err = errors.New(strings.TrimPrefix(strings.TrimSpace(string(exit.Stderr)), "error: "))
	}
	if err != nil {
		return nil, &replicate.Error{Op: "uv export", Kind: replicate.Usage, Err: err}
	}
	return text, nil
}
