package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	gcs "cloud.google.com/go/storage"

	"github.com/replicate/replicate"
)

// CredentialsVariable holds the JSON of a key or of a user's login, for a process that has no file of it.
const CredentialsVariable = "REPLICATE_GOOGLE_CREDENTIALS"

var given atomic.Pointer[string]

// UseCredentials has all stores use the JSON of a key or of a user's login, in place of what is found on this machine.
func UseCredentials(text string) { given.Store(&text) }

// detect finds the credentials of this process.
func detect() (*auth.Credentials, error) {
	o := &credentials.DetectOptions{Scopes: []string{gcs.ScopeReadWrite}}
	text := given.Load()
	if text == nil {
		return credentials.DetectDefault(o)
	}
	var kind struct {
		Type credentials.CredType `json:"type"`
	}
	if err := json.Unmarshal([]byte(*text), &kind); err != nil {
		return nil, err
	}
	if kind.Type != credentials.ServiceAccount && kind.Type != credentials.AuthorizedUser { // others name places to ask, which a stranger could choose
		return nil, fmt.Errorf("%q is no key and no login", kind.Type)
	}
	return credentials.NewCredentialsFromJSON(kind.Type, []byte(*text), o)
}

// Credentials returns the JSON that was found here. Where a machine of Google's hands them out there is none: then the other machine must have its own.
func (s *Store) Credentials(context.Context) (map[string]string, error) {
	found, err := detect()
	if err != nil {
		return nil, s.failed("find credentials for", "", errors.Join(errCredentials, err))
	}
	text := found.JSON()
	if len(text) == 0 {
		return nil, &replicate.Error{Op: "find credentials for", Path: s.bucket.URL(), Kind: replicate.Permission,
			Err:  errors.New("those of this machine are bound to it"),
			Hint: "set credentials: host for the other machine in replicate.yaml, and give it rights of its own"}
	}
	return map[string]string{CredentialsVariable: string(text)}, nil
}
