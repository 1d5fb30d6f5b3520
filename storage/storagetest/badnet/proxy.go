// Package badnet is a network that is bad in ways real ones are.
//
// A Link is a line of TCP with a length and a width, which can be cut. A Proxy has a link in front and makes HTTP requests behind it go
// wrong, by a schedule that follows from a seed, or by what a test decides. Both can be changed while they run. The package knows of
// object stores only how they word an error.
package badnet

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Fault is what can happen to one request.
type Fault string

// The faults. Before the first three nothing took effect; after Lost, Cut and Stall everything did.
const (
	None       Fault = ""
	Refused    Fault = "refused"     // the connection ends before the request got anywhere
	Reset      Fault = "reset"       // the same, by a reset
	CutRequest Fault = "cut request" // the server gets half of the request's body
	Lost       Fault = "lost"        // the request takes effect and its answer is lost
	Cut        Fault = "cut"         // the answer ends in the middle
	Stall      Fault = "stall"       // the answer stops in the middle and the connection stays
	Frozen     Fault = "frozen"      // nothing happens and the connection stays
	Error500   Fault = "500"         // an internal error of the server
	Error503   Fault = "503"         // a server, or what is in front of it, has no time
	SlowDown   Fault = "slow down"   // the server asks for fewer requests
)

// AllFaults are all that retrying helps against.
var AllFaults = []Fault{Refused, Reset, CutRequest, Lost, Cut, Stall, Frozen, Error500, Error503, SlowDown}

// Weather is the state of the network.
type Weather struct {
	RTT       time.Duration // that a round trip takes more
	Bandwidth int64         // bytes a second in each direction; 0 without limit
	Rate      float64       // the part of requests that something happens to
	Faults    []Fault       // what happens, each as likely as the others
}

// An Answer is what a proxy says itself, in the words of S3 or, for the API of GCS, of GCS.
type Answer struct {
	Status  int
	Code    string // NoSuchBucket
	Message string
	Header  map[string]string
}

// A Proxy passes HTTP requests on to one server, through the weather.
type Proxy struct {
	URL string // http://127.0.0.1:port

	link      *Link
	server    *httptest.Server
	upstream  *url.URL
	transport *http.Transport
	closing   chan struct{}
	requests  atomic.Int64
	faulty    atomic.Int64

	mu        sync.Mutex // guards what follows
	weather   Weather
	random    *rand.Rand
	intercept func(*http.Request) *Answer
	noting    bool
	exchanges []*Exchange // that were not asked for yet
}

// New returns a proxy for the server at an http URL, in fine weather. The same requests in the same order meet the same faults for the same
// seed.
func New(upstream string, seed uint64) (*Proxy, error) {
	u, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		upstream:  u,
		transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, ExpectContinueTimeout: time.Second},
		closing:   make(chan struct{}),
		random:    rand.New(rand.NewPCG(seed, 0)),
	}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.Config.ConnContext = withConn
	p.server.Start()
	if p.link, err = NewLink(p.server.Listener.Addr().String(), 0, 0); err != nil {
		p.server.Close()
		return nil, err
	}
	p.URL = "http://" + p.link.Address()
	return p, nil
}

// Close ends the proxy and what is under way in it.
func (p *Proxy) Close() {
	close(p.closing)
	p.link.Close()
	p.server.CloseClientConnections()
	p.server.Close()
	p.transport.CloseIdleConnections()
}

// Set changes the weather for requests that come from now on.
func (p *Proxy) Set(w Weather) {
	p.link.Set(w.RTT, w.Bandwidth)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
}

// Down cuts the network, and every connection, or mends it.
func (p *Proxy) Down(down bool) { p.link.Down(down) }

// Intercept makes the proxy ask f about each request, from several goroutines, and give the answer itself if there is one.
// A nil f ends that.
func (p *Proxy) Intercept(f func(*http.Request) *Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = f
}

// Requests is how many requests came, and how many of them something happened to.
func (p *Proxy) Requests() (all, faulty int64) { return p.requests.Load(), p.faulty.Load() }

// Carried is how many bytes clients sent so far, and how many they got, heads included.
func (p *Proxy) Carried() (up, back int64) { return p.link.Carried() }

// draw decides what happens to the next request.
func (p *Proxy) draw() (Fault, func(*http.Request) *Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.weather.Faults) == 0 || p.random.Float64() >= p.weather.Rate {
		return None, p.intercept
	}
	return p.weather.Faults[p.random.IntN(len(p.weather.Faults))], p.intercept
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	w = p.note(w, r)
	fault, intercept := p.draw()
	if intercept != nil {
		if answer := intercept(r); answer != nil {
			answer.write(w, r)
			return
		}
	}
	if fault != None {
		p.faulty.Add(1)
	}
	switch fault {
	case Refused:
		panic(http.ErrAbortHandler)
	case Reset:
		resetClient(r)
	case Frozen:
		p.freeze(r)
	case Error500:
		(&Answer{Status: http.StatusInternalServerError, Code: "InternalError", Message: "We encountered an internal error."}).write(w, r)
	case Error503:
		http.Error(w, "no server is available to handle this request", http.StatusServiceUnavailable)
	case SlowDown:
		(&Answer{Status: http.StatusServiceUnavailable, Code: "SlowDown", Message: "Please reduce your request rate."}).write(w, r)
	default:
		p.forward(w, r, fault)
	}
}

// freeze waits for the client to give up.
func (p *Proxy) freeze(r *http.Request) {
	go io.Copy(io.Discard, r.Body) // so that the server sees the client leave
	select {
	case <-r.Context().Done():
	case <-p.closing:
	}
	panic(http.ErrAbortHandler)
}

var errCut = errors.New("cut")

// forward passes a request on, and its answer back.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, fault Fault) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.upstream.Scheme, p.upstream.Host, ""
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	if fault == CutRequest {
		out.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), failing{}))
	}
	answer, err := p.transport.RoundTrip(out)
	if fault == CutRequest || err != nil {
		if err == nil {
			answer.Body.Close()
		}
		resetClient(r)
		return
	}
	defer answer.Body.Close()
	if fault == Lost {
		io.Copy(io.Discard, answer.Body)
		resetClient(r)
		return
	}
	maps.Copy(w.Header(), answer.Header)
	if fault == Cut || fault == Stall {
		p.half(w, r, answer, fault)
		return
	}
	w.WriteHeader(answer.StatusCode)
	if _, err := io.Copy(w, answer.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// half passes half of an answer back.
func (p *Proxy) half(w http.ResponseWriter, r *http.Request, answer *http.Response, fault Fault) {
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(body) == 0 { // all of it is its head
		resetClient(r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(answer.StatusCode)
	w.Write(body[:len(body)/2])
	http.NewResponseController(w).Flush()
	if fault == Stall {
		p.freeze(r)
	}
	panic(http.ErrAbortHandler)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

func (a *Answer) write(w http.ResponseWriter, r *http.Request) {
	for name, value := range a.Header {
		w.Header().Set(name, value)
	}
	gcs := slices.ContainsFunc([]string{"/storage/v1/", "/upload/storage/", "/download/storage/"}, func(prefix string) bool {
		return strings.HasPrefix(r.URL.Path, prefix)
	})
	if gcs {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.Status)
		fmt.Fprintf(w, `{"error":{"code":%d,"message":%q,"errors":[{"reason":%q,"message":%q}]}}`, a.Status, a.Message, a.Code, a.Message)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(a.Status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, a.Code, a.Message)
}
