package job

import (
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/replicate/replicate/storage/repository"
)

const logName = "log"

// logLimits say how much of a log is kept, in bytes of payload.
type logLimits struct {
	segment int64 // of one file
	first   int64 // how the job began
	last    int64 // and what it did of late; what is between is dropped, a segment at a time
}

// usualLimits keep a log for people whole, and one that went wrong from filling the disk.
var usualLimits = logLimits{segment: 16 << 20, first: 64 << 20, last: 1 << 30}

// A segment nothing is added to any more is compressed, and sealed by that: its name says how.
const (
	sealedSuffix = ".zst"
	olderSuffix  = ".gz" // of older supervisors, in containers that stopped before this client came
)

// A segment is a file of the log. Both files of one may be there for a moment: the sealed one is complete as soon as it has its name.
type segment struct {
	first  int64 // offset of its first byte
	raw    bool
	sealed string // suffix of the sealed one, "" if there is none
}

func segmentName(first int64) string { return fmt.Sprintf("%020d", first) }

// listSegments lists the segments of a log in order. A log that is not there has none.
func listSegments(dir fs.FS) ([]segment, error) {
	entries, err := fs.ReadDir(dir, logName)
	if isMissing(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var list []segment
	for _, e := range entries { // sorted: the raw one comes before the sealed one
		name, sealed := cutSealed(e.Name())
		first, err := strconv.ParseInt(name, 10, 64)
		if err != nil || segmentName(first) != name {
			continue
		}
		if n := len(list); n > 0 && list[n-1].first == first {
			list[n-1].sealed = sealed
			continue
		}
		list = append(list, segment{first: first, raw: sealed == "", sealed: sealed})
	}
	return list, nil
}

// cutSealed cuts from the name of a file what says how it is compressed.
func cutSealed(file string) (name, sealed string) {
	for _, suffix := range []string{sealedSuffix, olderSuffix} {
		if name, ok := strings.CutSuffix(file, suffix); ok {
			return name, suffix
		}
	}
	return file, ""
}

// segmentAt returns the segment that holds an offset, else the next one, else the last one that begins before it: what is to come follows there.
func segmentAt(list []segment, offset int64) (segment, bool) {
	i, found := slices.BinarySearchFunc(list, offset, func(s segment, offset int64) int { return int(min(max(s.first-offset, -1), 1)) })
	switch {
	case len(list) == 0:
		return segment{}, false
	case found:
		return list[i], true
	case i == 0:
		return list[0], true
	}
	return list[i-1], true
}

func (s segment) path() string {
	if s.raw {
		return path.Join(logName, segmentName(s.first))
	}
	return path.Join(logName, segmentName(s.first)+s.sealed)
}

// unpack returns the frames in what path holds.
func (s segment) unpack(file io.Reader) (io.Reader, error) {
	switch {
	case s.raw:
		return file, nil
	case s.sealed == olderSuffix:
		return gzip.NewReader(file)
	}
	return repository.Decompress(file)
}
