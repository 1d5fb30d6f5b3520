package docker_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

func TestFilesGoIntoAVolumeBeforeTheStart(t *testing.T) {
	e := engine(t)
	c := named(t, "cat /replicate/code/a/b; stat -c %a /replicate/code/a/b")
	c.Volumes = []docker.Mount{{Volume: c.Name, Target: docker.RunDir, Labels: c.Labels}}
	create(t, e, c)
	must(t, e.PutFiles(t.Context(), c.Name, docker.RunDir, docker.File{Name: "code/a/b", Mode: 0o640, Data: []byte("hello\n")}))
	start(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	tail, err := e.Tail(t.Context(), c.Name, 10)
	if err != nil || tail != "hello\n640\n" {
		t.Errorf("printed %q, %v", tail, err)
	}
	volumes, err := e.Volumes(t.Context(), map[string]string{docker.LabelProject: c.Name})
	must(t, err)
	if len(volumes) != 1 || volumes[0].Name != c.Name || volumes[0].Labels[docker.LabelKind] != docker.KindRun {
		t.Errorf("volumes: %+v", volumes)
	}
	wants(t, e.RemoveVolume(t.Context(), c.Name), replicate.Conflict)
	err = e.PutFiles(t.Context(), c.Name, "/no/such/dir", docker.File{Name: "a"})
	wants(t, err, replicate.NotFound)
}

func TestFilesComeBackFromAStoppedContainer(t *testing.T) {
	e := engine(t)
	c := named(t, "mkdir /replicate/d; echo hello > /replicate/d/f; ln -s f /replicate/d/l; mkfifo /replicate/d/p")
	c.Volumes = []docker.Mount{{Volume: c.Name, Target: docker.RunDir}}
	run(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	var got bytes.Buffer
	n, err := e.GetFile(t.Context(), c.Name, "/replicate/d/f", 6, &got)
	if n != 6 || err != nil || got.String() != "hello\n" {
		t.Errorf("%d bytes %q, %v", n, got.String(), err)
	}
	for path, kind := range map[string]replicate.Kind{
		"/replicate/d": replicate.Corrupt, "/replicate/d/l": replicate.Corrupt, "/replicate/d/p": replicate.Corrupt, "/replicate/none": replicate.NotFound,
	} {
		got.Reset()
		_, err := e.GetFile(t.Context(), c.Name, path, 1<<20, &got)
		if replicate.KindOf(err) != kind || got.Len() > 0 {
			t.Errorf("%s: %v and %d bytes", path, err, got.Len())
		}
	}
	_, err = e.GetFile(t.Context(), c.Name, "/replicate/d/f", 5, &got)
	wants(t, err, replicate.Corrupt, "6 bytes")
	stat, err := e.Stat(t.Context(), c.Name, "/replicate/d/f")
	if err != nil || stat.Size != 6 || !stat.Mode.IsRegular() {
		t.Errorf("%+v, %v", stat, err)
	}
	stat, err = e.Stat(t.Context(), c.Name, "/replicate/d/l")
	if err != nil || stat.Mode&fs.ModeSymlink == 0 {
		t.Errorf("%+v, %v", stat, err)
	}
}

// archive is a tar of one file.
func archive(t *testing.T, name, content string) io.Reader {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
	_, err := io.WriteString(w, content)
	must(t, errors.Join(err, w.Close()))
	return &buffer
}
