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
	return appendRecords(make([]Record, 0, bytes.Count(object, []byte{'\n'})), object)
}

// appendRecords appends what parseLines reads.
func appendRecords(records []Record, object []byte) ([]Record, error) {
	var errs []error
	c := &cursor{}
	err := eachLine(object, func(line []byte, off int) error {
		r, err := parseRecord(c, line)
		if err != nil {
			errs = append(errs, fmt.Errorf("line at byte %d: %w", off, err))
			return nil
		}
		records = append(records, r)
		return nil
	})
	return records, errors.Join(append(errs, err)...)
}

// eachLine calls f for every line, without its end. Every line must end.
func eachLine(raw []byte, f func(line []byte, off int) error) error {
	for off := 0; off < len(raw); {
		n := bytes.IndexByte(raw[off:], '\n')
		if n < 0 {
			return fmt.Errorf("line at byte %d has no end", off)
		}
		if err := f(raw[off:off+n:off+n], off); err != nil {
			return err
		}
		off += n + 1
	}
	return nil
}
