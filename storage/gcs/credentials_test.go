package gcs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestCredentialsTravel finds a login in a file, as the SDK does, and uses its text where there is no file. Kinds that name places to ask are refused.
func TestCredentialsTravel(t *testing.T) {
	login := `{"type":"authorized_user","client_id":"id","client_secret":"hush","refresh_token":"again"}`
	path := filepath.Join(t.TempDir(), "login.json")
	if err := os.WriteFile(path, []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	found, err := (&Store{client: &client{}}).Credentials(t.Context())
	if err != nil || found[CredentialsVariable] != login || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
	defer given.Store(nil)
	UseCredentials(found[CredentialsVariable])
	c, err := detect()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(c.JSON()) {
		t.Errorf("the credentials are %q", c.JSON())
	}
	UseCredentials(`{"type":"external_account","token_url":"https://example.com"}`)
	if _, err := detect(); err == nil {
		t.Error("an external account was used")
	}
}
