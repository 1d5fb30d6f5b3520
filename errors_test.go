package replicate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing"
)

func TestErrorText(t *testing.T) {
	cause := errors.New("bucket does not exist")
	for _, tt := range []struct {
		err  *Error
		want string
	}{
		{&Error{Op: "open", Path: "s3://hooli", Err: cause}, "open s3://hooli: bucket does not exist"},
		{&Error{Op: "open", Err: cause}, "open: bucket does not exist"},
		{&Error{Path: "replicate.yaml:2", Err: cause}, "replicate.yaml:2: bucket does not exist"},
		{&Error{Err: cause}, "bucket does not exist"},
		{&Error{Op: "open", Path: "s3://hooli"}, "open s3://hooli"},
		{&Error{Kind: Full}, "full"},
		{&Error{}, "internal"},
		{Errorf(Usage, "no %q", "x"), `no "x"`},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want Kind
	}{
		{"nil", nil, ""},
		{"kind", Errorf(Full, "x"), Full},
		{"wrapped", fmt.Errorf("a: %w", Errorf(Full, "x")), Full},
		{"outermost", &Error{Kind: Corrupt, Err: Errorf(Full, "x")}, Corrupt},
		{"outermost that has one", &Error{Op: "open", Err: fmt.Errorf("b: %w", &Error{Op: "get", Err: Errorf(Full, "x")})}, Full},
		{"joined", errors.Join(io.EOF, Errorf(Ambiguous, "x")), Ambiguous},
		{"fs", fs.ErrNotExist, NotFound},
		{"path", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}, Permission},
		{"fs inside", &Error{Op: "open", Err: os.ErrNotExist}, NotFound},
		{"other", io.EOF, Internal},
		{"no cause", &Error{Op: "open"}, Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := KindOf(tt.err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHintOf(t *testing.T) {
	inner := Errorf(Usage, "x").WithHint("do %s", "this")
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"nil", nil, ""},
		{"none", io.EOF, ""},
		{"own", inner, "do this"},
		{"inner", &Error{Op: "a", Err: fmt.Errorf("b: %w", inner)}, "do this"},
		{"outermost", &Error{Hint: "do that", Err: inner}, "do that"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := HintOf(tt.err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestErrorsIs(t *testing.T) {
	notFound, denied, full := Errorf(NotFound, "x"), Errorf(Permission, "x"), Errorf(Full, "x: %w", io.EOF)
	for _, tt := range []struct {
		err, target error
		want        bool
	}{
		{notFound, fs.ErrNotExist, true},
		{notFound, fs.ErrPermission, false},
		{denied, fs.ErrPermission, true},
		{full, fs.ErrNotExist, false},
		{full, io.EOF, true},
		{&Error{Op: "a", Err: fmt.Errorf("b: %w", notFound)}, fs.ErrNotExist, true},
	} {
		if got := errors.Is(tt.err, tt.target); got != tt.want {
			t.Errorf("errors.Is(%v, %v) = %v", tt.err, tt.target, got)
		}
	}
}
