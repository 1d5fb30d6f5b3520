package replicate

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
)

// A Kind says what sort of thing went wrong. Kinds exist where somebody acts on them: exit codes, errno, retries.
type Kind string

// The kinds. The command's exit code is 2 for Usage, 3 for NotFound, 4 for Ambiguous, else 1.
const (
	Internal    Kind = "internal" // a bug, or something nobody foresaw
	NotFound    Kind = "not_found"
	Ambiguous   Kind = "ambiguous" // a prefix of several ids
	Corrupt     Kind = "corrupt"   // damaged or impossible bytes
	Conflict    Kind = "conflict"  // somebody else did something that excludes this
	Full        Kind = "full"      // no space left
	Usage       Kind = "usage"     // asked for wrongly
	Permission  Kind = "permission"
	Unavailable Kind = "unavailable" // not now: network, a locked file
)

// An Error is what crosses the border of a package: doing Op to Path went wrong because of Err, and Hint says what to do.
// Op, Path and Hint may be empty. The text is "<op> <path>: <err>", lower case, no full stop.
type Error struct {
	Op   string
	Path string
	Kind Kind
	Err  error
	Hint string // what to do next, without "hint:"
}

func (e *Error) Error() string {
	where := e.Op
	if e.Path != "" {
		if where != "" {
			where += " "
		}
		where += e.Path
	}
	switch {
	case e.Err == nil:
		return cmp.Or(where, string(e.Kind), string(Internal))
	case where == "":
		return e.Err.Error()
	}
	return where + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, fs.ErrNotExist) and fs.ErrPermission work by kind.
func (e *Error) Is(target error) bool {
	return e.Kind == NotFound && target == fs.ErrNotExist || e.Kind == Permission && target == fs.ErrPermission
}

// Errorf returns an Error of a kind with a formatted cause and nothing else. %w works.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// WithHint returns e with the hint set, for use behind Errorf.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// KindOf returns the kind of the outermost Error that has one; NotFound and Permission for the errors of io/fs;
// Internal for everything else; "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	for e, ok := errors.AsType[*Error](err); ok; e, ok = errors.AsType[*Error](e.Err) {
		if e.Kind != "" {
			return e.Kind
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrPermission):
		return Permission
	}
	return Internal
}

// HintOf returns the outermost hint in the chain of err, or "".
func HintOf(err error) string {
	for e, ok := errors.AsType[*Error](err); ok; e, ok = errors.AsType[*Error](e.Err) {
		if e.Hint != "" {
			return e.Hint
		}
	}
	return ""
}
