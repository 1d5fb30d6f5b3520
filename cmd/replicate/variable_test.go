package main

// A variable is one of the environment that people may set, or that jobs find, for docs/cli.md.
type variable struct{ name, meaning string }

// variables are all of ours. Those of ssh, of clouds and of pip mean what they mean elsewhere.
var variables = []variable{
	{"REPLICATE_ATTEMPT", "found by a job of `replicate run`: 1, and 2, 3, … after `--retries`"},
	{"REPLICATE_BINARY", "the command that the Python package starts, instead of that beside it or in PATH"},
	{"REPLICATE_CACHE_SIZE", "most that is kept below `~/.cache` of what was read from afar, such as `20GB`"},
	{"REPLICATE_DISABLE", "`1`: the Python package records nothing"},
	{"REPLICATE_EXIT_WAIT", "seconds that the end of a training waits for commits that are on their way to a bucket"},
	{"REPLICATE_EXPERIMENT_ID", "the experiment that `replicate.init()`, `commit`, `log` and `stop` take part in, instead of a new one"},
	{"REPLICATE_HOST", "found by a job of `replicate run`: the machine as typed with `-H`, which is its HOST"},
	{"REPLICATE_QUIET", "`1`: the Python package prints nothing"},
	{"REPLICATE_RANK", "which process of a distributed training this is: only 0 records. Set by hand where it is guessed wrong"},
	{"REPLICATE_SSH", "`openssh`: `replicate run` connects by the ssh program"},
	{"REPLICATE_STORAGE", "the storage, instead of that of replicate.yaml; the flag `-S` wins over it"},
	{"REPLICATE_STRICT", "`1`: errors while recording end the training; else they are warnings"},
	{"REPLICATE_USER", "who is recorded as USER, instead of the name that the system says"},
}
