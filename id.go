package replicate

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// An ID names an experiment or a commit: 128 random bits as 32 lower-case hex digits. Repositories of 2020 and 2021 have
// 64 digits. People see and type the first ShortLen; any unique prefix works. "" is no ID.
type ID string

const (
	idLen       = 32
	legacyIDLen = 64
	// ShortLen is how many digits people see.
	ShortLen = 7
)

// NewID reads 16 bytes from random, which should be crypto/rand.Reader, and returns them as an ID.
func NewID(random io.Reader) (ID, error) {
	var b [idLen / 2]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return ID(hex.EncodeToString(b[:])), nil
}

// ParseID checks that s is a whole ID.
func ParseID(s string) (ID, error) {
	if len(s) != idLen && len(s) != legacyIDLen || !isHex(s) {
		return "", Errorf(Usage, "%q is not an id of 32 hex digits", s)
	}
	return ID(s), nil
}

// IsLegacy reports whether id is one of a repository of 2020 or 2021.
func (id ID) IsLegacy() bool { return len(id) == legacyIDLen }

// IsPrefix reports whether s could be the beginning of an ID: one or more lower-case hex digits, not too many.
func IsPrefix(s string) bool {
	return s != "" && len(s) <= legacyIDLen && isHex(s)
}

// Short returns the digits people see.
func (id ID) Short() string { return string(id[:min(ShortLen, len(id))]) }

// HasPrefix reports whether id begins with prefix.
func (id ID) HasPrefix(prefix string) bool { return strings.HasPrefix(string(id), prefix) }

// A Hash is a BLAKE3-256 hash: the name of a pack, of a frame, of a file's content.
type Hash [32]byte

// ParseHash reads 64 lower-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*len(h) || !isHex(s) {
		return Hash{}, Errorf(Corrupt, "%q is not a hash of 64 hex digits", s)
	}
	_, err := hex.Decode(h[:], []byte(s))
	return h, err
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero value, which stands for "no hash".
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes 64 hex digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hex digits.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	if err == nil {
		*h = parsed
	}
	return err
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
