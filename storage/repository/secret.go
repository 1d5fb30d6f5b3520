package repository

import "strings"

// Reasons of the built-in rules.
const (
	whySecret = "secret"
	whyCache  = "cache"
	whyVenv   = "virtual environment"
)

// secretNames are files and directories that hold credentials under a name of their own.
var secretNames = nameSet(
	".env", ".envrc", ".netrc", "_netrc", ".pgpass", ".htpasswd", ".git-credentials", ".pypirc", ".npmrc", // passwords
	".ssh", ".gnupg", "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", // private keys
	".aws", ".azure", ".kube", ".boto", ".s3cfg", ".oci", ".databrickscfg", ".dockercfg", "rclone.conf", // clouds
	"gcloud", "application_default_credentials.json", "kaggle.json", ".kaggle", "secrets.toml",
)

// secretExts are the endings of private keys and of stores of them.
var secretExts = nameSet(".pem", ".key", ".p12", ".pfx", ".ppk", ".jks", ".keystore", ".kdbx", ".tfvars")

// secretPrefixes begin the names that Google's console gives to JSON files with keys.
var secretPrefixes = []string{"service-account", "service_account", "serviceaccount", "client_secret", "credentials"}

// envExamples are the endings of .env files that are written to be shared.
var envExamples = nameSet("example", "sample", "template", "dist", "defaults", "schema")

// cacheNames are directories, and files, that programs make again.
var cacheNames = nameSet(
	"__pycache__", ".ipynb_checkpoints", ".cache", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox",
	".eggs", ".DS_Store", "Thumbs.db",
)

var cacheExts = nameSet(".pyc", ".pyo")

func nameSet(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// builtIn is the last layer of the ignore rules. It looks at the last name of a path alone; virtual environments are found by
// what is in them (isVenv).
func builtIn(name string, isDir bool) ruling {
	switch {
	case isSecret(name, isDir):
		return ruling{decided: true, out: true, why: whySecret}
	case cacheNames[name], !isDir && cacheExts[extension(name)]:
		return ruling{decided: true, out: true, why: whyCache}
	}
	return ruling{}
}

func isSecret(name string, isDir bool) bool {
	if secretNames[name] {
		return true
	}
	if isDir {
		return false
	}
	if rest, ok := strings.CutPrefix(name, ".env."); ok {
		return !envExamples[rest]
	}
	ext := extension(name)
	if ext == ".json" {
		for _, prefix := range secretPrefixes {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
	}
	return secretExts[ext]
}

// isVenv reports whether a directory with an entry of this name is a virtual environment, of venv or of conda.
func isVenv(name string) bool { return name == "pyvenv.cfg" || name == "conda-meta" }

func extension(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[i:]
	}
	return ""
}
