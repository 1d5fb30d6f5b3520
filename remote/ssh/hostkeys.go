package ssh

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A hostKey is one line of a known_hosts file.
//
// The files are read here and not by x/crypto/ssh/knownhosts: that gives up on a file with one line it does not know, and does not look
// for the name without the port, or match patterns with ports, as OpenSSH does.
type hostKey struct {
	marker string   // "", "cert-authority", "revoked"
	names  []string // patterns, or one hash
	key    ssh.PublicKey
	file   string
	line   int
}

// hostKeys are all lines of all files.
type hostKeys []hostKey

// readHostKeys reads files in order. Those that do not exist are empty, lines that make no sense say nothing, as in OpenSSH.
func readHostKeys(files []string) (keys hostKeys, err error) {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, parseHostKeys(data, file)...)
	}
	return keys, nil
}

func parseHostKeys(data []byte, file string) (keys hostKeys) {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		marker, names, key, _, _, err := ssh.ParseKnownHosts(line)
		if err == nil {
			keys = append(keys, hostKey{marker, lower(names), key, file, n})
		}
	}
	return keys
}

// matches says whether a line is about a name, which is host or [host]:port.
func (k hostKey) matches(name string) bool {
	if len(k.names) == 1 && strings.HasPrefix(k.names[0], "|1|") {
		return hashed(k.names[0], name)
	}
	return matchList(k.names, name)
}

// lower makes patterns comparable with names, which are in lower case. Hashes are not touched.
func lower(names []string) []string {
	if len(names) == 1 && strings.HasPrefix(names[0], "|") {
		return names
	}
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = strings.ToLower(name)
	}
	return list
}

// hashed says whether a hash is that of a name.
func hashed(hash, name string) bool {
	parts := strings.Split(hash, "|")
	if len(parts) != 4 {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	want, err := base64.StdEncoding.DecodeString(parts[3])
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return err == nil && hmac.Equal(mac.Sum(nil), want)
}

// of returns the lines about a name that have a marker.
func (keys hostKeys) of(name, marker string) (list hostKeys) {
	for _, k := range keys {
		if k.marker == marker && k.matches(name) {
			list = append(list, k)
		}
	}
	return list
}

// with returns the first line with a key.
func (keys hostKeys) with(key ssh.PublicKey) (hostKey, bool) {
	i := slices.IndexFunc(keys, func(k hostKey) bool { return same(k.key, key) })
	if i < 0 {
		return hostKey{}, false
	}
	return keys[i], true
}

// revoked returns the line that revokes a key, whatever host it names: a key that leaked is bad everywhere.
func (keys hostKeys) revoked(key ssh.PublicKey) (hostKey, bool) {
	var list hostKeys
	for _, k := range keys {
		if k.marker == "revoked" {
			list = append(list, k)
		}
	}
	return list.with(key)
}

func same(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
