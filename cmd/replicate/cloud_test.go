package main

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/badnet"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// TestClouds runs scripts that use object storage. They have two commands more:
//
//	cloud s3|gs                     sets the environment so that $BUCKET, a URL, is reached through a network of the script's own
//	network METHOD STATUS CODE      answers requests of a method so, * all; "network fine" ends that
func TestClouds(t *testing.T) {
	clouds := map[string]*servers.Server{"s3": storagetest.StartVersity(t), "gs": storagetest.StartGCS(t)}
	networks := &sync.Map{} // *testscript.TestScript to *badnet.Proxy
	cloud := func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 || clouds[args[0]] == nil {
			ts.Fatalf("usage: cloud s3|gs")
		}
		server := clouds[args[0]]
		proxy, err := badnet.New(server.Endpoint, 1)
		ts.Check(err)
		ts.Defer(proxy.Close)
		networks.Store(ts, proxy)
		for name, value := range server.EnvVia(proxy.URL) {
			ts.Setenv(name, value)
		}
		ts.Setenv("BUCKET", storagetest.Prefix(server.URL))
	}
	network := func(ts *testscript.TestScript, neg bool, args []string) {
		proxy, ok := networks.Load(ts)
		if neg || !ok || len(args) != 1 && len(args) != 3 {
			ts.Fatalf("usage: network METHOD STATUS CODE, or network fine, behind cloud")
		}
		if len(args) == 1 {
			proxy.(*badnet.Proxy).Intercept(nil)
			return
		}
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		proxy.(*badnet.Proxy).Intercept(func(r *http.Request) *badnet.Answer {
			if args[0] != "*" && args[0] != r.Method {
				return nil
			}
			return &badnet.Answer{Status: status, Code: args[2], Message: strings.ToLower(args[2])}
		})
	}
	runScripts(t, "testdata/cloud", map[string]func(*testscript.TestScript, bool, []string){"cloud": cloud, "network": network})
}
