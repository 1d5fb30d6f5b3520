package repository

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// The prefixes of keys. A key that is none of these is somebody else's: ignored, never deleted.
const (
	configKey   = "replicate.json"
	packPrefix  = "pack/"
	logPrefix   = "log/"
	indexPrefix = "index/"
	livePrefix  = "live/"
	gcPrefix    = "gc/"
)

// shortHash is the length of the names of log and index objects: 128 bits.
const shortHash = 16

// packKey is pack/<2 hex>/<62 hex>. Two levels, so that gc lists 256 prefixes in parallel.
func packKey(name replicate.Hash) string {
	s := name.String()
	return packPrefix + s[:2] + "/" + s[2:]
}

// parsePackKey reverses packKey.
func parsePackKey(key string) (name replicate.Hash, ok bool) {
	rest, ok := strings.CutPrefix(key, packPrefix)
	if !ok || len(rest) != 65 || rest[2] != '/' {
		return name, false
	}
	ok = decodeHex(name[:], []byte(rest[:2]+rest[3:]))
	return name, ok
}

// logKey names a log object by its bytes.
func logKey(object []byte) string {
	h := hashOf(object)
	return logPrefix + hex.EncodeToString(h[:shortHash])
}

// isLogKey reports whether key is log/<32 hex>.
func isLogKey(key string) bool {
	rest, ok := strings.CutPrefix(key, logPrefix)
	return ok && decodeHex(make([]byte, shortHash), []byte(rest))
}

// indexKey names a segment by its generation, 1 to 9, and its first frame.
func indexKey(generation int, first []byte) string {
	h := hashOf(first)
	return generationPrefix(generation) + hex.EncodeToString(h[:shortHash])
}

// generationPrefix begins the keys of the segments of a generation.
func generationPrefix(generation int) string { return indexPrefix + strconv.Itoa(generation) + "-" }

// parseIndexKey returns the generation and the name of a segment.
func parseIndexKey(key string) (generation int, name [shortHash]byte, ok bool) {
	rest, ok := strings.CutPrefix(key, indexPrefix)
	if !ok || len(rest) != 2+2*shortHash || rest[0] < '1' || rest[0] > '9' || rest[1] != '-' {
		return 0, name, false
	}
	ok = decodeHex(name[:], []byte(rest[2:]))
	return int(rest[0] - '0'), name, ok
}

// liveKey is where an experiment's heartbeat is.
func liveKey(experiment replicate.ID) string { return livePrefix + string(experiment) }

// parseLiveKey reverses liveKey.
func parseLiveKey(key string) (replicate.ID, bool) {
	rest, ok := strings.CutPrefix(key, livePrefix)
	if !ok {
		return "", false
	}
	id, err := replicate.ParseID(rest)
	return id, err == nil
}
