package remote

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestABinaryThatChangesIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "replicate")
	c := &Client{Memory: filepath.Join(dir, "caches", "remote.json"), Now: func() time.Time { return time.Now().Add(time.Hour) }}
	sum := func(content string) string {
		t.Helper()
		if err := os.WriteFile(binary+".new", []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(binary+".new", binary); err != nil {
			t.Fatal(err)
		}
		sum, err := c.sum(binary)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	one := sum("one")
	if known := c.remembered().Programs[binary].Sum; known != one {
		t.Fatalf("%q is remembered and not %q", known, one)
	}
	if two := sum("two"); two == one {
		t.Fatal("another content of the same size has the same sum")
	}
	if sum("one") != one {
		t.Fatal("the same content has another sum")
	}
}

func TestABinaryThatWasJustWrittenIsNotRemembered(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "replicate")
	if err := os.WriteFile(binary, []byte("one"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Client{Memory: filepath.Join(dir, "remote.json"), Now: time.Now}
	if _, err := c.sum(binary); err != nil {
		t.Fatal(err)
	}
	if known := c.remembered().Programs; len(known) > 0 {
		t.Fatalf("a stamp that tells no later change apart is trusted: %v", known)
	}
}

func TestAHostThatRefusedLimitsIsAskedAgainAfterADay(t *testing.T) {
	now := time.Now()
	c := &Client{Memory: filepath.Join(t.TempDir(), "remote.json"), Now: func() time.Time { return now }}
	refusing, other := &Host{client: c, socket: "/run/one.sock"}, &Host{client: c, socket: "/run/other.sock"}
	refusing.rememberLimits()
	if !refusing.refusedLimits() || other.refusedLimits() {
		t.Fatalf("refused: %v by the host that did, %v by another", refusing.refusedLimits(), other.refusedLimits())
	}
	now = now.Add(25 * time.Hour)
	if refusing.refusedLimits() {
		t.Fatal("a host may have been mended in a day")
	}
}

func TestGPUsAreKnownForADay(t *testing.T) {
	now := time.Now()
	c := &Client{Memory: filepath.Join(t.TempDir(), "remote.json"), Now: func() time.Time { return now }}
	h := &Host{client: c}
	seen := gpus{Driver: "550.1", IDs: []string{"GPU-a"}, Names: []string{"H100"}}
	h.rememberGPUs(seen)
	now = now.Add(23 * time.Hour)
	if got := h.rememberedGPUs(); !got.equal(seen) {
		t.Fatalf("%+v is known", got)
	}
	h.rememberGPUs(seen)
	now = now.Add(23 * time.Hour)
	if got := h.rememberedGPUs(); !got.equal(seen) {
		t.Fatalf("%+v is known of a host that has said so 23 hours ago", got)
	}
	now = now.Add(2 * time.Hour)
	if got := h.rememberedGPUs(); got.there() {
		t.Fatalf("%+v is believed after more than a day", got)
	}
	h.rememberGPUs(seen)
	h.rememberGPUs(gpus{})
	if got := h.rememberedGPUs(); got.there() {
		t.Fatalf("%+v is believed of a host that has none any more", got)
	}
}
