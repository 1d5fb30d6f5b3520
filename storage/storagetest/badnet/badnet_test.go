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

// TestLink measures, on machines that are busy: nothing is faster than the line, and the fastest of many is not much slower.
func TestLink(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	fastest := func(enough time.Duration) time.Duration {
		var took []time.Duration
		for len(took) < 10 || len(took) < 200 && slices.Min(took) > enough {
			begin := time.Now()
			if _, body, err := get(client, p.URL); err != nil || len(body) != 100_000 {
				t.Fatal(len(body), err)
			}
			took = append(took, time.Since(begin))
		}
		return slices.Min(took)
	}
	p.Set(badnet.Weather{RTT: 60 * time.Millisecond})
	if d := fastest(110 * time.Millisecond); d < 60*time.Millisecond || d > 110*time.Millisecond {
		t.Errorf("a round trip of 60 ms took %v", d)
	}
	p.Set(badnet.Weather{Bandwidth: 1_000_000})
	if d := fastest(200 * time.Millisecond); d < 95*time.Millisecond || d > 200*time.Millisecond {
		t.Errorf("100 kB at 1 MB/s took %v", d)
	}
}

func TestTripsAreCounted(t *testing.T) {
	e := startEcho(t)
	p, client := startProxy(t, e.URL, 1)
	const rtt = 20 * time.Millisecond
	p.Set(badnet.Weather{RTT: rtt})
	p.Exchanges()
	for range 3 {
		if _, _, err := get(client, p.URL+"/x?y=z"); err != nil {
			t.Fatal(err)
		}
	}
	all := p.Exchanges()
	if got := badnet.Trips(all); got != 4 || len(all) != 3 {
		t.Errorf("%d requests one after another on a new connection are %d round trips: %+v", len(all), got, all)
	}
	if e := all[0]; e.Request != "GET /x?y=z" || e.Dialled.IsZero() || e.Came.Sub(e.Dialled) < 3*rtt/2 || !all[1].Dialled.IsZero() || e.Answered.Before(e.Came) {
		t.Errorf("noted %+v", all)
	}
	if all := p.Exchanges(); len(all) != 0 {
		t.Errorf("again: %+v", all)
	}

	came := time.Now()
	at := func(sent, answered time.Duration) badnet.Exchange {
		return badnet.Exchange{Came: came.Add(sent), Answered: came.Add(answered), RTT: rtt}
	}
	on := func(dialled time.Duration, e badnet.Exchange) badnet.Exchange {
		e.Dialled = came.Add(dialled)
		return e
	}
	for name, tt := range map[string]struct {
		all  []badnet.Exchange
		want int
	}{
		"none":                        {nil, 0},
		"side by side":                {[]badnet.Exchange{at(0, 5), at(0, 1), at(rtt-1, rtt)}, 1},
		"one after others":            {[]badnet.Exchange{at(0, 5), at(0, 1), at(rtt+1, rtt+2)}, 2},
		"the longest way":             {[]badnet.Exchange{at(0, 1), at(rtt+1, rtt+2), at(rtt+2, 3*rtt), at(2*rtt+2, 2*rtt+3)}, 3},
		"a connection for an answer":  {[]badnet.Exchange{at(0, 1), on(rtt/2+1, at(2*rtt+1, 2*rtt+2))}, 3},
		"a connection made beside it": {[]badnet.Exchange{at(0, 1), on(rtt/2, at(2*rtt+1, 2*rtt+2))}, 2},
		"a connection that stood by":  {[]badnet.Exchange{at(0, 1), at(rtt+1, rtt+2), on(0, at(2*rtt+2, 2*rtt+3))}, 3},
		"no answer":                   {[]badnet.Exchange{{Came: came, RTT: rtt}, at(5*rtt, 5*rtt)}, 1},
	} {
		if got := badnet.Trips(tt.all); got != tt.want {
			t.Errorf("%s: %d round trips, want %d", name, got, tt.want)
		}
	}
}
