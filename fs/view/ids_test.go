package view

import (
	"strings"
	"testing"
)

func TestIDsRoundTrip(t *testing.T) {
	for c := range classes {
		for _, ord := range []int64{0, 1, 12345, maxOrd} {
			for _, entry := range []int64{0, 1, 54321, maxEntry} {
				id := newID(c, ord, entry)
				if id.class() != c || id.ord() != ord || id.entry() != entry || id>>63 != 0 {
					t.Errorf("%d %d %d became %d %d %d", c, ord, entry, id.class(), id.ord(), id.entry())
				}
			}
		}
	}
	if Root.class() != fixed || Root.entry() != entryRoot {
		t.Error("1 is not the root")
	}
	f := fileID(7, metricsSVG, 1<<40+5)
	if f.class() != fileOf || f.ord() != 7 || f.kind() != metricsSVG || f.version() != 5 {
		t.Errorf("a rendered file: %x", uint64(f))
	}
	g := growingID(7, outputLog, 255, 300)
	if g.class() != growingOf || g.kind() != outputLog || g.epoch() != 255 || g.columns() != 300 {
		t.Errorf("a growing file: %x", uint64(g))
	}
	l := linkID(commitLink, 9, besidesStep, 64)
	if l.class() != commitLink || l.ord() != 9 || l.form() != besidesStep || l.digits() != 64 {
		t.Errorf("a link: %x", uint64(l))
	}
}

func TestIDsThatDoNotFitPanic(t *testing.T) {
	for _, n := range [][2]int64{{-1, 0}, {0, -1}, {maxOrd + 1, 0}, {0, maxEntry + 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("ordinal %d, entry %d made an id", n[0], n[1])
				}
			}()
			newID(commitFile, n[0], n[1])
		}()
	}
}

func TestEscape(t *testing.T) {
	tests := []struct{ text, name string }{
		{"plain", "plain"}, {"", "%"}, {"%", "%25"}, {"train/loss", "train%2Floss"}, {".hidden", "%2Ehidden"}, {"-rf", "%2Drf"},
		{"a.b-c", "a.b-c"}, {"end ", "end%20"}, {" start", " start"}, {"tab\t", "tab%09"}, {"\x7f", "%7F"}, {"\xff", "%FF"}, {"größe", "größe"},
		{"\uFFFD", "\uFFFD"}, {" ", "%20"}, {".", "%2E"}, {"..", "%2E."},
	}
	for _, tt := range tests {
		if got := Escape(tt.text); got != tt.name {
			t.Errorf("%q is %q, want %q", tt.text, got, tt.name)
		}
	}
	long := strings.Repeat("ä", 150)
	if a, b := Escape(long+"x"), Escape(long+"y"); len(a) > maxName || a == b || a[:keptName] != b[:keptName] {
		t.Errorf("long names: %q and %q", a, b)
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "%", "a/b", ".x", "\xff\xfe", strings.Repeat("ü%", 80), "x ", strings.Repeat("\x00", 90)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := Escape(s)
		if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00\n") {
			t.Errorf("%q is %q, which is no name", s, name)
		}
		if text, ok := Unescape(name); ok && text != s && len(name) < keptName { // longer ones may have been cut
			t.Errorf("%q is %q, which is %q", s, name, text)
		} else if !ok && len(name) < keptName {
			t.Errorf("%q is %q, which cannot be read", s, name)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", "%", "%2F", "%2f", "%%", "%zz", "%2", "a%", "..", "%2E."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if text, ok := Unescape(name); ok && Escape(text) != name {
			t.Errorf("%q is %q, which is %q", name, text, Escape(text))
		}
	})
}

func TestShorts(t *testing.T) {
	digits := []uint64{0x67386ce1_00000000, 0x67386ce2_00000000, 0x67386cff_00000000, 0x1, 0xffffffff_ffffffff, 0xffffffff_fffffffe}
	var all []named
	for i, d := range digits {
		all = append(all, named{ord: int64(10 - i), digits: d, time: int64(i)})
	}
	s := newShorts(all)
	want := map[int64]string{10: "67386ce1", 9: "67386ce2", 8: "67386cf", 7: "0000000", 6: "ffffffffffffffff", 5: "fffffffffffffffe"}
	for ord, name := range want {
		if got, ok := s.nameOf(ord); !ok || got != name {
			t.Errorf("%d is named %q, want %q", ord, got, name)
		}
		if got, ok := s.find(name); !ok || got != ord {
			t.Errorf("%q is found as %d, want %d", name, got, ord)
		}
	}
	for _, prefix := range []string{"", "67386ce", "f", "67386ce10", "6x", "9"} {
		ord, ok := s.find(prefix)
		if wanted := prefix == "67386ce10"; ok != wanted || ok && ord != 10 {
			t.Errorf("%q is found: %d, %v", prefix, ord, ok)
		}
	}
	next := s.with([]named{{ord: 3, digits: 0x2, time: 99}}, map[int64]bool{9: true})
	if name, _ := next.nameOf(10); name != "67386ce" || next.len() != len(all) || next.newest != 99 {
		t.Errorf("after a change: %q, %d names", name, next.len())
	}
	if s.newest != 5 || s.from(7) != 2 {
		t.Error("a change changed the former")
	}
}
