package repository

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/replicate/replicate"
)

// MaxObject bounds a log object and a segment.
const MaxObject = 64 << 20

// encodeLog returns the log object of records that were encoded, and its key.
func encodeLog(records []Record) (key string, object []byte) {
	for _, r := range records {
		object = append(append(object, r.Line...), '\n')
	}
	return logKey(object), object
}

// parseLog reads a log object whose key names its bytes. An object that is not what its key says yields no records; a line that is no record leaves
// the others readable, and err joins one error for each.
func parseLog(key string, object []byte) (records []Record, err error) {
	if logKey(object) != key {
		return nil, &replicate.Error{Op: "read", Path: key, Kind: replicate.Corrupt, Err: errors.New("the bytes are not those that were stored")}
	}
	records, err = parseLines(object)
	if err != nil {
		return records, &replicate.Error{Op: "read", Path: key, Kind: replicate.Corrupt, Err: err}
	}
	return records, nil
}

// parseLines reads one record a line. Every line must end.
func parseLines(object []byte) (records []Record, err error) {
	records = make([]Record, 0, bytes.Count(object, []byte{'\n'}))
	var errs []error
	for off := 0; off < len(object); {
		n := bytes.IndexByte(object[off:], '\n')
		if n < 0 {
			errs = append(errs, fmt.Errorf("line at byte %d has no end", off))
			break
		}
		r, err := ParseRecord(object[off : off+n : off+n])
		if err != nil {
			errs = append(errs, fmt.Errorf("line at byte %d: %w", off, err))
		} else {
			records = append(records, r)
		}
		off += n + 1
	}
	return records, errors.Join(errs...)
}
