// Package python carries the Python package of this folder in the binary: the supervisor of a job puts it beside itself, so that a script finds a
// client of its own version without installing anything.
//
// It knows nothing of what is in the files.
package python

import (
	"embed"
	"io/fs"
)

//go:embed replicate/*.py
var files embed.FS

// Files are the modules of the package, in the folder "replicate".
func Files() fs.FS { return files }
