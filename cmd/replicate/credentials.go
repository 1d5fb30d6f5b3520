package main

import (
	"context"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/gcs"
)

// emulatorVariables name servers that stand in for a cloud. They are no secrets, and go where the credentials go.
var emulatorVariables = []string{"STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL_S3"}

// credentials returns what an uploader on another machine needs for a storage: what the SDK of its cloud finds here, and nothing else.
func (w *world) credentials(ctx context.Context, url string) (map[string]string, error) {
	found := map[string]string{}
	for _, name := range emulatorVariables {
		if value := w.getenv(name); value != "" {
			found[name] = value
		}
	}
	if found["STORAGE_EMULATOR_HOST"] != "" {
		return found, nil // which asks for none
	}
	store, err := storage.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	keys, err := storage.CredentialsOf(ctx, store)
	for name, value := range keys {
		found[name] = value
	}
	return found, err
}

// useGoogleCredentials takes those that came as a variable.
func useGoogleCredentials(getenv func(string) string) {
	if text := getenv(gcs.CredentialsVariable); text != "" {
		gcs.UseCredentials(text)
	}
}
