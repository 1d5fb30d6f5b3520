// Package servers runs object stores on this machine's loopback, for tests and benchmarks: gofakes3 in this process, versitygw and
// fake-gcs-server in processes of their own.
//
// It knows nothing of package storage: a Server is a URL and the environment in which the SDKs of the clouds reach it.
package servers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

const (
	// Bucket is the bucket that every server has when it starts.
	Bucket = "replicate-test"
	// AccessKey and SecretKey open the servers of S3; gofakes3 opens to everyone.
	AccessKey = "replicate"
	SecretKey = "replicate-secret" // of AccessKey

	// startLimit is how long a server may take to answer, on a loaded machine.
	startLimit = time.Minute
)

// A Server is an object store that runs until Close.
type Server struct {
	URL      string // of the bucket: s3://replicate-test
	Endpoint string // http://127.0.0.1:port

	program string // of a server that is a process
	end     func()
}

// Close ends the server and waits for it.
func (s *Server) Close() { s.end() }

// Env returns the variables with which a process reaches the server, and nothing else in the clouds.
func (s *Server) Env() map[string]string { return s.EnvVia(s.Endpoint) }

// EnvVia is Env for a process that reaches the server through a proxy at endpoint.
func (s *Server) EnvVia(endpoint string) map[string]string {
	if strings.HasPrefix(s.URL, "gs:") {
		return map[string]string{"STORAGE_EMULATOR_HOST": endpoint}
	}
	return map[string]string{
		"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_SESSION_TOKEN": "",
		"AWS_REGION": "us-east-1", "AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED": "true",
	}
}

// GoFakeS3 starts an S3 server in this process, in memory. It checks no signatures.
func GoFakeS3() (*Server, error) {
	backend := s3mem.New()
	if err := backend.CreateBucket(Bucket); err != nil {
		return nil, fmt.Errorf("create a bucket in gofakes3: %w", err)
	}
	quiet := gofakes3.WithLogger(gofakes3.DiscardLog())
	server := httptest.NewServer(gofakes3.New(backend, quiet).Server())
	return &Server{URL: "s3://" + Bucket, Endpoint: server.URL, end: server.Close}, nil
}

// Versity starts the versitygw at program, an S3 server whose objects are files of dir, which must be empty.
func Versity(program, dir string) (*Server, error) {
	root, meta, users := filepath.Join(dir, "root"), filepath.Join(dir, "meta"), filepath.Join(dir, "users")
	for _, d := range []string{filepath.Join(root, Bucket), meta, users} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--port", address, "--iam-dir", users, "--iam-cache-disable", "posix", "--sidecar", meta, root)
	cmd.Env = environ(map[string]string{"ROOT_ACCESS_KEY": AccessKey, "ROOT_SECRET_KEY": SecretKey})
	end, err := start(cmd, "http://"+address)
	if err != nil {
		return nil, err
	}
	return &Server{URL: "s3://" + Bucket, Endpoint: "http://" + address, program: program, end: end}, nil
}

// GCS starts the fake-gcs-server at program, in memory.
func GCS(program string) (*Server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	// Without -public-host it answers no reads.
	cmd := exec.Command(program, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host", address, "-log-level", "error")
	endpoint := "http://" + address
	end, err := start(cmd, endpoint)
	if err != nil {
		return nil, err
	}
	if err := createGCSBucket(endpoint); err != nil {
		end()
		return nil, err
	}
	return &Server{URL: "gs://" + Bucket, Endpoint: endpoint, end: end}, nil
}

func createGCSBucket(endpoint string) error {
	body, err := json.Marshal(map[string]string{"name": Bucket})
	if err != nil {
		return err
	}
	answer, err := http.Post(endpoint+"/storage/v1/b?project=test", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("create a bucket in fake-gcs-server: %s: %s", answer.Status, text)
	}
	return nil
}

// start runs a server until it answers at url, and returns what ends it.
func start(cmd *exec.Cmd, url string) (end func(), err error) {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		cmd.Wait()
	}()
	end = sync.OnceFunc(func() {
		cmd.Process.Kill()
		<-gone
	})
	limit := time.After(startLimit)
	for {
		if answer, err := http.Get(url); err == nil {
			answer.Body.Close()
			return end, nil
		}
		select {
		case <-gone:
			return nil, fmt.Errorf("%s ended: %s", cmd.Path, output.String())
		case <-limit:
			end()
			return nil, fmt.Errorf("%s does not answer: %s", cmd.Path, output.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddress() (string, error) {
	port, err := FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// FreePort returns a port at which nobody listens on this machine. It is below those that the kernel gives to whoever asks for any, of which
// one would be somebody else's now and then before the server that it is for listens there.
func FreePort() (int, error) {
	for {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return port, l.Close()
	}
}

func environ(vars map[string]string) []string {
	env := []string{"PATH=/usr/bin:/bin"}
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	return env
}
