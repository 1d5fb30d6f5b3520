package recorder

import (
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// variables are what decides how a training behaves and has no secrets. "*" at the end stands for anything.
var variables = []string{
	"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED",
	"CUBLAS_WORKSPACE_CONFIG", "XLA_FLAGS", "CONDA_DEFAULT_ENV", "VIRTUAL_ENV", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID",
	"RANK", "WORLD_SIZE", "NCCL_*",
}

// An environment is what a process's variables are.
type environment map[string]string

func (e environment) get(name string) string { return e[name] }

// captured returns the variables that are recorded: the list above and the names in more, sorted, secrets masked.
func (e environment) captured(more []string) replicate.Values {
	var kept replicate.Values
	for name, value := range e {
		wanted := func(pattern string) bool {
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			return name == pattern || isPrefix && strings.HasPrefix(name, prefix)
		}
		if slices.ContainsFunc(variables, wanted) || slices.Contains(more, name) {
			kept = append(kept, replicate.Member{Name: name, Value: replicate.Text(maskText(secrecyOf(name), value))})
		}
	}
	return kept.Sorted()
}
