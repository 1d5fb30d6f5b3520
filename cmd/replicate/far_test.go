package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/storagetest"
)

// init makes far:///folder a storage that is not local, for all processes of a script: the objects are files of the folder, and while there is a
// file <folder>.away, nothing of it can be reached; what is in the file is the kind of the error.
func init() {
	storage.Register("far", func(_ context.Context, u *url.URL) (storage.Store, error) {
		store, err := disk.New(u.Path)
		if err != nil {
			return nil, err
		}
		hooks := storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
			if text, err := os.ReadFile(u.Path + ".away"); err == nil {
				return &replicate.Error{Kind: replicate.Kind(strings.TrimSpace(string(text))), Err: errors.New("no route to host")}
			}
			return nil
		}}
		return farStore{storagetest.Wrap(struct{ storage.Store }{store}, hooks), u}, nil
	})
}

type farStore struct {
	storage.Store
	url *url.URL
}

func (s farStore) URL() string { return s.url.String() }
