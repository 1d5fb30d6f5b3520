package s3

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestPolicyIsDocumented compares the policy of docs/storage.md with the permissions that errors name.
func TestPolicyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/storage.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	text, _, _ := strings.Cut(rest, "```")
	var policy struct {
		Statement []struct {
			Action   []string
			Resource string
		}
	}
	if err := json.Unmarshal([]byte(text), &policy); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range policy.Statement {
		got = append(got, s.Action...)
	}
	slices.Sort(got)
	want := slices.Compact(slices.Sorted(maps.Values(permissions)))
	want = slices.DeleteFunc(want, func(p string) bool { return p == permissions["create"] })
	if !slices.Equal(got, want) {
		t.Errorf("docs/storage.md allows %q, used are %q", got, want)
	}
}
