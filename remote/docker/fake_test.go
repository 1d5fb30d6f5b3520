package docker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// A fake is an engine of some version that gives the answers of a test.
type fake struct {
	version string
	answers map[string]func(http.ResponseWriter, *http.Request) // by "METHOD /path", without the version
}

func (f *fake) open(t *testing.T) *docker.Engine {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", f.version)
		path := r.URL.Path
		if path == "/_ping" {
			return
		}
		path, ok := strings.CutPrefix(path, "/v"+f.version)
		answer := f.answers[r.Method+" "+path]
		if !ok || answer == nil {
			t.Errorf("%s %s was asked for", r.Method, r.URL.Path)
			http.NotFound(w, r)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return open(t, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
}

// says answers with a value.
func says(value any) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(value)
	}
}

// refuses answers with an error.
func refuses(status int, message string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"message": message})
	}
}

var versions = []string{"1.40", "1.44", "1.56"}

func TestEveryVersionIsSpokenAsItIs(t *testing.T) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			f := &fake{version, map[string]func(http.ResponseWriter, *http.Request){
				"GET /info": says(map[string]any{
					"ID": "ABCD", "Name": "gpu1", "OSType": "linux", "Architecture": "aarch64", "NCPU": 8, "MemTotal": 1 << 36, "ServerVersion": "29.0.1",
					"Runtimes": map[string]any{"runc": map[string]any{}, "nvidia": map[string]any{}}, "CDISpecDirs": []string{"/etc/cdi"},
					"SecurityOptions": []string{"name=seccomp,profile=builtin", "name=rootless"}, "SystemTime": "2020-02-02T02:02:02.5Z",
				}),
			}}
			e := f.open(t)
			info, err := e.Info(t.Context())
			must(t, err)
			if e.API() != version || info.Arch != "arm64" || !info.Rootless || !info.HasRuntime("nvidia") || info.HasRuntime("crun") ||
				len(info.CDIDirs) != 1 || info.CPUs != 8 || !info.Time.Equal(time.Date(2020, 2, 2, 2, 2, 2, 5e8, time.UTC)) {
				t.Errorf("API %s, %+v", e.API(), info)
			}
		})
	}
}

func TestAssumedVersionIsSpokenWithoutAsking(t *testing.T) {
	asked := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path
		says(map[string]any{"Architecture": "x86_64"})(w, r)
	}))
	t.Cleanup(server.Close)
	e, err := docker.Assume(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}, "1.44")
	must(t, err)
	t.Cleanup(func() { e.Close() })
	_, err = e.Info(t.Context())
	must(t, err)
	if first := <-asked; first != "GET /v1.44/info" || e.API() != "1.44" {
		t.Errorf("%s was asked for first, API %s", first, e.API())
	}
}

// TestStartDoesNotWaitForTheAnswerToAttach has an engine that answers the latter only once it was asked for the former, behind which it comes.
func TestStartDoesNotWaitForTheAnswerToAttach(t *testing.T) {
	asked, started := make(chan struct{}), make(chan struct{})
	f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){
		"POST /containers/n/attach": func(w http.ResponseWriter, _ *http.Request) {
			close(asked)
			<-started
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			io.Copy(conn, conn)
			conn.Close()
		},
		"POST /containers/n/start": func(w http.ResponseWriter, _ *http.Request) {
			<-asked
			close(started)
			w.WriteHeader(http.StatusNoContent)
		},
	}}
	var out strings.Builder
	var read error
	again, err := f.open(t).StartAttached(t.Context(), docker.Container{Name: "n"}, func(s *docker.Stream) {
		_, err := s.Write([]byte("\x01\x00\x00\x00\x00\x00\x00\x05hello"))
		read = errors.Join(err, s.CloseWrite(), s.Output(&out, io.Discard))
	})
	if again || err != nil || read != nil || out.String() != "hello" {
		t.Errorf("again %v, %v; %q came, %v", again, err, out.String(), read)
	}
}

func TestContainerThatDoesNotStartIsNotAttachedTo(t *testing.T) {
	closed := make(chan struct{})
	f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){
		"POST /containers/n/attach": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			io.Copy(io.Discard, conn)
			close(closed)
		},
		"POST /containers/n/start": refuses(500, "no space left on device"),
	}}
	_, err := f.open(t).StartAttached(t.Context(), docker.Container{Name: "n"}, func(*docker.Stream) {})
	wants(t, err, replicate.Full, "start container n")
	<-closed
}

func TestEnginesThatAreTooOldSaySo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.24") }))
	t.Cleanup(server.Close)
	_, err := docker.Open(t.Context(), func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	wants(t, err, replicate.Usage, "speaks API 1.24", "19.03")
}

func TestClockOfTheEngineCounts(t *testing.T) {
	past := time.Now().Add(-90 * time.Minute)
	f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){
		"GET /volumes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", past.UTC().Format(http.TimeFormat))
			says(map[string]any{})(w, r)
		},
	}}
	e := f.open(t)
	_, err := e.Volumes(t.Context(), nil)
	must(t, err)
	if off := e.Now().Sub(past); off < -time.Second || off > time.Minute {
		t.Errorf("by the engine's clock it is %v later than that says", off)
	}
}

func TestGPUsAreAskedForInTheEnginesWay(t *testing.T) {
	for _, tt := range []struct {
		name string
		gpus docker.GPUs
		want string
	}{
		{"none", docker.GPUs{}, `null`},
		{"all", docker.GPUs{All: true}, `[{"Capabilities":[["gpu"]],"Count":-1,"DeviceIDs":null,"Driver":"","Options":null}]`},
		{"some", docker.GPUs{IDs: []string{"GPU-a"}}, `[{"Capabilities":[["gpu"]],"Count":0,"DeviceIDs":["GPU-a"],"Driver":"","Options":null}]`},
		{"all by CDI", docker.GPUs{All: true, CDI: true},
			`[{"Capabilities":null,"Count":0,"DeviceIDs":["nvidia.com/gpu=all"],"Driver":"cdi","Options":null}]`},
		{"some by CDI", docker.GPUs{IDs: []string{"GPU-a", "GPU-b"}, CDI: true},
			`[{"Capabilities":null,"Count":0,"DeviceIDs":["nvidia.com/gpu=GPU-a","nvidia.com/gpu=GPU-b"],"Driver":"cdi","Options":null}]`},
	} {
		for _, version := range versions {
			t.Run(tt.name+" "+version, func(t *testing.T) {
				var asked struct {
					HostConfig struct{ DeviceRequests any }
				}
				f := &fake{version, map[string]func(http.ResponseWriter, *http.Request){
					"POST /containers/create": func(w http.ResponseWriter, r *http.Request) {
						if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
							t.Error(err)
						}
						w.WriteHeader(http.StatusCreated)
						says(map[string]string{"Id": "1"})(w, r)
					},
				}}
				_, err := f.open(t).Create(t.Context(), docker.Container{Name: "n", Image: "i", GPUs: tt.gpus})
				must(t, err)
				if got, _ := json.Marshal(asked.HostConfig.DeviceRequests); string(got) != tt.want {
					t.Errorf("asked for %s, want %s", got, tt.want)
				}
			})
		}
	}
}

// TestErrorsAreInOurWords has what engines and runtimes of several versions say.
func TestErrorsAreInOurWords(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int
		message string
		kind    replicate.Kind
		want    string
		hint    string
	}{
		{"no toolkit", 500, `could not select device driver "" with capabilities: [[gpu]]`,
			replicate.NotFound, "Docker on the host has no driver for GPUs", "nvidia-container-toolkit"},
		{"CDI and old engine", 500, `could not select device driver "cdi" with capabilities: []`,
			replicate.Usage, "this Docker is too old for GPUs by CDI", "nvidia-container-toolkit"},
		{"CDI without the device", 500, `failed to create task for container: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-a`,
			replicate.NotFound, "Docker on the host does not know the GPU", "nvidia-ctk cdi generate"},
		{"driver too old", 500, `OCI runtime create failed: runc create failed: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.4, please update your driver`,
			replicate.Usage, "the GPU driver of the host is too old for the image's CUDA", "older cuda"},
		{"driver gone", 500, `OCI runtime create failed: nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown`,
			replicate.Unavailable, "the GPU driver of the host does not answer", "nvidia-smi"},
		{"full", 500, `mkdir /var/lib/docker/overlay2/1: no space left on device`, replicate.Full, "no space left on the host's disk", "prune"},
		{"image", 404, `No such image: python:3.11-slim`, replicate.NotFound, "no such image on the host", ""},
		{"container", 404, `No such container: n`, replicate.NotFound, "no such container on the host", ""},
		{"anything", 500, "Something Odd.\nhappened", replicate.Internal, "something Odd. happened", ""},
		{"nothing", 503, "", replicate.Unavailable, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){"POST /containers/n/start": refuses(tt.status, tt.message)}}
			_, err := f.open(t).Start(t.Context(), docker.Container{Name: "n"})
			wants(t, err, tt.kind, "start container n: ")
			if tt.want != "" && err.Error() != "start container n: "+tt.want {
				t.Errorf("says %q, want %q", err, "start container n: "+tt.want)
			}
			if !strings.Contains(replicate.HintOf(err), tt.hint) || tt.hint == "" && replicate.HintOf(err) != "" {
				t.Errorf("hint %q, want %q", replicate.HintOf(err), tt.hint)
			}
			for _, ugly := range []string{"{", "Error response from daemon", "http"} {
				if strings.Contains(err.Error(), ugly) {
					t.Errorf("%q has %q in it", err, ugly)
				}
			}
		})
	}
}

func TestRefusedLimitsMakeTheContainerAgain(t *testing.T) {
	var limits []string
	started := 0
	f := &fake{"1.41", map[string]func(http.ResponseWriter, *http.Request){
		"POST /containers/create": func(w http.ResponseWriter, r *http.Request) {
			var asked struct {
				HostConfig struct{ Ulimits []struct{ Name string } }
			}
			json.NewDecoder(r.Body).Decode(&asked)
			limits = append(limits, fmt.Sprint(asked.HostConfig.Ulimits))
			w.WriteHeader(http.StatusCreated)
			says(map[string]string{"Id": "1"})(w, r)
		},
		"POST /containers/n/start": func(w http.ResponseWriter, r *http.Request) {
			if started++; started == 1 {
				refuses(500, "OCI runtime create failed: error setting rlimits for ready process: error setting rlimit type 8: operation not permitted: unknown")(w, r)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		},
		"DELETE /containers/n": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	}}
	e := f.open(t)
	c := docker.Container{Name: "n", Image: "i"}
	_, err := e.Create(t.Context(), c)
	must(t, err)
	for _, want := range []bool{true, false} {
		again, err := e.Start(t.Context(), c)
		if again != want || err != nil {
			t.Errorf("again %v, %v", again, err)
		}
	}
	if want := "[[{memlock} {stack}] []]"; fmt.Sprint(limits) != want {
		t.Errorf("asked for limits %v, want %s", limits, want)
	}
}

func TestPullTellsItsProgressAndItsError(t *testing.T) {
	for _, tt := range []struct {
		said string
		kind replicate.Kind
		want string
	}{
		{`{"error":"manifest for i:1 not found: manifest unknown: manifest unknown"}`, replicate.NotFound, "pull i:1: the registry has no such image"},
		{`{"error":"no matching manifest for linux/arm64/v8 in the manifest list entries"}`, replicate.NotFound, "architecture"},
		{`{"error":"failed to register layer: write /x: no space left on device"}`, replicate.Full, "no space left on the host's disk"},
		{`{"sta`, replicate.Unavailable, "the connection to Docker was lost"},
	} {
		f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){
			"POST /images/create": func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"status":"Downloading","id":"a","progressDetail":{"current":5,"total":10}}
					{"status":"Downloading","id":"b","progressDetail":{"current":1,"total":2}} {"status":"Extracting","id":"a","progressDetail":{"current":1,"total":10}} `+tt.said)
			},
		}}
		var last docker.Pulled
		err := f.open(t).Pull(t.Context(), "i:1", func(p docker.Pulled) { last = p })
		wants(t, err, tt.kind, tt.want)
		if last != (docker.Pulled{Done: 6, Total: 12}) {
			t.Errorf("progress %+v", last)
		}
	}
}

func TestLostConnectionIsSaidAsSuch(t *testing.T) {
	f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){
		"POST /containers/n/start": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		},
	}}
	_, err := f.open(t).Start(t.Context(), docker.Container{Name: "n"})
	wants(t, err, replicate.Unavailable, "start container n: the connection to Docker was lost")
}

func TestGetFileRefusesWhatWasNotAskedFor(t *testing.T) {
	// The archive is written by a machine that a job could have tampered with.
	f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){
		"GET /containers/n/archive": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Docker-Container-Path-Stat", "e30=")
			io.Copy(w, archive(t, "../../etc/passwd", "evil"))
		},
	}}
	_, err := f.open(t).GetFile(t.Context(), "n", "/replicate/status.json", 100, io.Discard)
	wants(t, err, replicate.Corrupt, "fetch n:/replicate/status.json", "another file")
}

func TestUsageOfEveryVersion(t *testing.T) {
	labels := map[string]string{docker.LabelKind: docker.KindCache}
	images := []any{map[string]any{"Id": "sha256:1", "RepoTags": []string{"replicate-env:k"}, "Labels": map[string]string{docker.LabelKind: docker.KindEnv},
		"Size": 100, "SharedSize": 60, "Containers": 2}}
	containers := []any{map[string]any{"Id": "c", "Names": []string{"/other/link", "/n"}, "State": "running", "SizeRw": 7,
		"Labels": map[string]string{docker.LabelKind: docker.KindRun}}}
	volumes := []any{map[string]any{"Name": "v", "Labels": labels, "UsageData": map[string]any{"Size": 9, "RefCount": 1}}}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			answer := map[string]any{"Images": images, "Containers": containers, "Volumes": volumes}
			if version == "1.56" {
				answer = map[string]any{"ImageUsage": map[string]any{"Items": images}, "ContainerUsage": map[string]any{"Items": containers},
					"VolumeUsage": map[string]any{"Items": volumes}}
			}
			f := &fake{version, map[string]func(http.ResponseWriter, *http.Request){"GET /system/df": says(answer)}}
			usage, err := f.open(t).Usage(t.Context())
			must(t, err)
			if len(usage.Images) != 1 || usage.Images[0].Name != "replicate-env:k" || usage.Images[0].Size != 40 || usage.Images[0].Users != 2 {
				t.Errorf("images: %+v", usage.Images)
			}
			if len(usage.Containers) != 1 || usage.Containers[0].Name != "n" || usage.Containers[0].Size != 7 {
				t.Errorf("containers: %+v", usage.Containers)
			}
			if len(usage.Volumes) != 1 || usage.Volumes[0].Size != 9 || usage.Volumes[0].Users != 1 || usage.Volumes[0].Kind != docker.KindCache {
				t.Errorf("volumes: %+v", usage.Volumes)
			}
		})
	}
}

func TestAbandonedProgramsAreTold(t *testing.T) {
	sent := time.Now().Add(-2 * time.Hour)
	image := func(id string, tags ...string) map[string]any {
		return map[string]any{"Id": id, "RepoTags": tags, "Labels": map[string]string{docker.LabelKind: docker.KindBin}, "Created": sent.Unix()}
	}
	f := &fake{"1.44", map[string]func(http.ResponseWriter, *http.Request){"GET /system/df": says(map[string]any{
		"Images": []any{image("sha256:1", "replicate-bin:0123456789ab"), image("sha256:2", "replicate-bin:0123456789ab-xyz"), image("sha256:3")},
	})}}
	usage, err := f.open(t).Usage(t.Context())
	must(t, err)
	var told []bool
	for _, i := range usage.Images {
		told = append(told, i.Abandoned(time.Now()))
		if i.Abandoned(sent) {
			t.Errorf("%s is abandoned at once", i.Name)
		}
	}
	if fmt.Sprint(told) != "[false true true]" {
		t.Errorf("abandoned: %v", told)
	}
}
