package docker

import "github.com/replicate/replicate"

// Names of our objects in an engine. They are ids: who creates one that exists goes on with it.
const (
	LocksVolume = "replicate-locks"           // leases of GPUs
	EnvImages   = "replicate-env"             // images of environments, one tag per key
	binVolumes  = "replicate-bin-"            // volumes of programs, by their hashes
	binImages   = "replicate-bin"             // what a program's volume is filled from
	ProgramDir  = "/.replicate"               // where a program's volume is mounted, read-only
	ProgramPath = "/.replicate/bin/replicate" // the binary in it
	RunDir      = "/replicate"                // where a run's volume is mounted
)

// RunName is the name of a run's container, and of its volume.
func RunName(experiment replicate.ID) string { return "replicate-run-" + string(experiment) }

// BuildName is the name of the container that builds the layer of a key.
func BuildName(key string) string { return "replicate-build-" + key }

// EnvImage is the reference of the image of a key.
func EnvImage(key string) string { return EnvImages + ":" + key }

// ChunksVolume is the volume of a user's chunks of code.
func ChunksVolume(user string) string { return "replicate-chunks-" + user }

// CacheVolume is the volume of a user's caches of pip, uv and apt.
func CacheVolume(user string) string { return "replicate-cache-" + user }

// Labels of our objects. Everybody who may use the engine reads them: they hold identifiers only, never arguments or values.
const (
	LabelKind       = "replicate.kind" // one of the kinds below; every object of ours has it
	LabelExperiment = "replicate.experiment"
	LabelProject    = "replicate.project"
	LabelStorage    = "replicate.storage" // which one the experiment is in
	LabelUser       = "replicate.user"
	LabelClient     = "replicate.client" // the machine that created it
	LabelEnv        = "replicate.env"    // key of the environment
	LabelParent     = "replicate.parent" // key of the layer below
	LabelGPUs       = "replicate.gpus"
	LabelCreated    = "replicate.created" // RFC 3339, by the engine's clock
	LabelProtocol   = "replicate.protocol"
)

// Kinds of our objects.
const (
	KindRun    = "run"    // container and volume of a run
	KindBuild  = "build"  // container that builds a layer
	KindEnv    = "env"    // image of a layer
	KindBin    = "bin"    // program
	KindChunks = "chunks" // volume of chunks
	KindCache  = "cache"  // volume of caches
	KindLocks  = "locks"  // volume of leases
	KindPull   = "pull"   // container that serves the volume of a run that has ended
	KindPrune  = "prune"  // container that drops chunks
)
