package replicate

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

const someID = "67386ce1f0c24d5b8a2e7d9c3b6f4a10"

func TestNewID(t *testing.T) {
	id, err := NewID(bytes.NewReader([]byte("0123456789abcdefXXX")))
	if err != nil || id != "30313233343536373839616263646566" {
		t.Errorf("%s, %v", id, err)
	}
	a, err := NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := NewID(rand.Reader); err != nil || a == b {
		t.Errorf("%s twice, %v", a, err)
	}
	if back, err := ParseID(string(a)); err != nil || back != a {
		t.Errorf("%s came back as %s, %v", a, back, err)
	}
	if id, err := NewID(strings.NewReader("short")); id != "" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%s, %v", id, err)
	}
}

func TestParseID(t *testing.T) {
	for _, s := range []string{someID, someID + someID} {
		if id, err := ParseID(s); err != nil || string(id) != s {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "67386ce", someID[:31], someID + "0", strings.ToUpper(someID), someID[:31] + "g", someID[:31] + "\n", " " + someID[:31],
	} {
		if id, err := ParseID(s); err == nil || id != "" || KindOf(err) != Usage {
			t.Errorf("%q: %q, %v", s, id, err)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "6": true, "67386ce": true, someID: true, someID + someID: true, someID + someID + "0": false, "A": false, "x": false, "0x": false,
	} {
		if IsPrefix(s) != want {
			t.Errorf("IsPrefix(%q) = %v", s, !want)
		}
	}
	id := ID(someID)
	if id.Short() != "67386ce" || ID("ab").Short() != "ab" || ID("").Short() != "" {
		t.Errorf("short: %q, %q, %q", id.Short(), ID("ab").Short(), ID("").Short())
	}
	if !id.HasPrefix("673") || !id.HasPrefix(someID) || id.HasPrefix("674") || id.HasPrefix(someID+"0") {
		t.Error("HasPrefix")
	}
}

func TestHash(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 4)
	h, err := ParseHash(text)
	if err != nil || h.String() != text || h.IsZero() {
		t.Fatalf("%s, %v", h, err)
	}
	data, err := json.Marshal(h)
	if err != nil || string(data) != `"`+text+`"` {
		t.Fatalf("%s, %v", data, err)
	}
	var back Hash
	if err := json.Unmarshal(data, &back); err != nil || back != h {
		t.Errorf("%s, %v", back, err)
	}
	for _, bad := range []string{"", text[:63], text + "0", strings.ToUpper(text), text[:63] + "g"} {
		if got, err := ParseHash(bad); err == nil || !got.IsZero() || KindOf(err) != Corrupt {
			t.Errorf("%q: %s, %v", bad, got, err)
		}
		if err := back.UnmarshalText([]byte(bad)); err == nil || back != h {
			t.Errorf("%q: %s, %v", bad, back, err)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(strings.Repeat("0a", 32))
	f.Add("x")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := ParseHash(s); err == nil && h.String() != s {
			t.Errorf("%q became %s", s, h)
		}
		if id, err := ParseID(s); err == nil && string(id) != s {
			t.Errorf("%q became %s", s, id)
		}
	})
}
