package badnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest/badnet"
)

// An echo server answers with what it was sent, or with 100,000 bytes, and counts what took effect.
type echo struct {
	*httptest.Server
	served, broken atomic.Int64
}

func startEcho(t *testing.T) *echo {
	e := &echo{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			e.broken.Add(1)
			return
		}
		e.served.Add(1)
		if r.Method == http.MethodGet {
			body = bytes.Repeat([]byte("x"), 100_000)
		}
		w.Header().Set("X-Host", r.Host)
		w.Write(body)
	}))
	t.Cleanup(e.Close)
	return e
}

func startProxy(t *testing.T, upstream string, seed uint64) (*badnet.Proxy, *http.Client) {
	t.Helper()
	p, err := badnet.New(upstream, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return p, &http.Client{Transport: transport}
}

func get(c *http.Client, url string) (int, []byte, error) {
	answer, err := c.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

func TestFineWeather(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	answer, err := client.Post(p.URL+"/a%2Fb?x=y", "", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || string(body) != "hello" || "http://"+answer.Header.Get("X-Host") != p.URL {
		t.Errorf("%q, host %q, %v", body, answer.Header.Get("X-Host"), err)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault  badnet.Fault
		status int
		served int64
		text   string
	}{
		{badnet.Refused, 0, 0, ""},
		{badnet.Reset, 0, 0, ""},
		{badnet.CutRequest, 0, 0, ""},
		{badnet.Lost, 0, 1, ""},
		{badnet.Error500, 500, 0, "InternalError"},
		{badnet.Error503, 503, 0, "no server"},
		{badnet.SlowDown, 503, 0, "<Code>SlowDown</Code>"},
		{badnet.Cut, 200, 1, ""},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			e := startEcho(t)
			p, client := startProxy(t, e.URL, 1)
			p.Set(badnet.Weather{Rate: 1, Faults: []badnet.Fault{tt.fault}})
			answer, err := client.Post(p.URL, "", bytes.NewReader(make([]byte, 100_000)))
			if tt.status == 0 {
				if err == nil {
					t.Errorf("answered %s", answer.Status)
				}
			} else if err != nil || answer.StatusCode != tt.status {
				t.Errorf("%+v, %v", answer, err)
			} else {
				defer answer.Body.Close()
				body, err := io.ReadAll(answer.Body)
				if cut := tt.fault == badnet.Cut; cut != (err != nil) || cut && len(body) != 50_000 || !strings.Contains(string(body), tt.text) {
					t.Errorf("%d bytes, %v", len(body), err)
				}
			}
			if e.served.Load() != tt.served {
				t.Errorf("%d requests took effect", e.served.Load())
			}
			if all, faulty := p.Requests(); all == 0 || all != faulty {
				t.Errorf("%d requests, %d faulty", all, faulty)
			}
		})
	}
}

func TestFrozenRequestsEndWithTheirClient(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	for _, fault := range []badnet.Fault{badnet.Frozen, badnet.Stall} {
		p.Set(badnet.Weather{Rate: 1, Faults: []badnet.Fault{fault}})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err == nil {
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", fault, err)
		}
		cancel()
	}
}

func TestTheSeedDecides(t *testing.T) {
	e := startEcho(t)
	run := func(seed uint64) string {
		p, client := startProxy(t, e.URL, seed)
		p.Set(badnet.Weather{Rate: 0.5, Faults: []badnet.Fault{badnet.Error500, badnet.SlowDown}})
		var text strings.Builder
		for range 40 {
			status, _, err := get(client, p.URL)
			fmt.Fprintln(&text, status, err)
		}
		return text.String()
	}
	if a, b, c := run(7), run(7), run(8); a != b || a == c {
		t.Errorf("seed 7:\n%sagain:\n%sseed 8:\n%s", a, b, c)
	}
}

func TestDownCutsEverything(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	if status, _, err := get(client, p.URL); status != 200 {
		t.Fatal(err)
	}
	p.Down(true)
	if _, _, err := get(client, p.URL); err == nil {
		t.Error("answered though it is down")
	}
	p.Down(false)
	if status, _, err := get(client, p.URL); status != 200 {
		t.Errorf("does not come back: %v", err)
	}
}

func TestIntercept(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	p.Intercept(func(r *http.Request) *badnet.Answer {
		if r.Method == http.MethodGet {
			return &badnet.Answer{Status: 403, Code: "AccessDenied", Message: "No."}
		}
		return nil
	})
	if status, body, err := get(client, p.URL); status != 403 || !strings.Contains(string(body), "<Code>AccessDenied</Code>") {
		t.Errorf("%d, %s, %v", status, body, err)
	}
	if _, body, err := get(client, p.URL+"/storage/v1/b/x"); !strings.Contains(string(body), `"reason":"AccessDenied"`) {
		t.Errorf("%s, %v", body, err)
	}
	if answer, err := client.Post(p.URL, "", nil); err != nil || answer.StatusCode != 200 {
		t.Errorf("post: %v", err)
	}
}

// TestLink measures, on machines that are busy: nothing is faster than the line, and the fastest of some is not much slower.
func TestLink(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	fastest := func() time.Duration {
		var took []time.Duration
		for range 10 {
			begin := time.Now()
			if _, body, err := get(client, p.URL); err != nil || len(body) != 100_000 {
				t.Fatal(len(body), err)
			}
			took = append(took, time.Since(begin))
		}
		return slices.Min(took)
	}
	p.Set(badnet.Weather{RTT: 60 * time.Millisecond})
	if d := fastest(); d < 60*time.Millisecond || d > 110*time.Millisecond {
		t.Errorf("a round trip of 60 ms took %v", d)
	}
	p.Set(badnet.Weather{Bandwidth: 1_000_000})
	if d := fastest(); d < 95*time.Millisecond || d > 200*time.Millisecond {
		t.Errorf("100 kB at 1 MB/s took %v", d)
	}
}
