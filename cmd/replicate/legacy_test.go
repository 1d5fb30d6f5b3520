package main

import (
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/replicate/replicate/storage/legacy/legacytest"
)

// legacyFixture FORMAT DIR makes a repository of one of the formats of 2020 and 2021, F1 to F7, or of all of them, in DIR.
func legacyFixture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: legacy FORMAT DIR")
	}
	root := legacytest.Root(nil)
	for _, f := range legacytest.Formats {
		if f.String() == args[0] {
			root = legacytest.Fixture(f)
		}
	}
	if args[0] == "all" {
		root = legacytest.Mixed()
	}
	if root == nil {
		ts.Fatalf("unknown format %s", args[0])
	}
	ts.Check(root.Write(ts.MkAbs(args[1])))
}
