package job

import (
	"context"
	"io"
	"io/fs"
)

// OpenLog returns the frames of the log in a job's directory from an offset on, all that are there now. The directory may be a copy.
func OpenLog(dir fs.FS, from int64) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}

// FollowLog is OpenLog that waits for more until the job has ended or ctx has, or its supervisor is gone.
func FollowLog(ctx context.Context, dir string, from int64) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}
