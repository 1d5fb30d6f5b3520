package repository

import (
	"encoding/base64"
	"encoding/json"
	"math"

	"github.com/replicate/replicate"
)

func (r *Record) parse(c *cursor) error {
	kind, err := c.first()
	if err != nil {
		return err
	}
	member := func([]byte) error { return c.skip(0) }
	switch string(kind) {
	case "experiment":
		r.Experiment = new(ExperimentRow)
		member = func(key []byte) error { return r.Experiment.member(c, key) }
	case "commit":
		r.Commit = &CommitRow{Commit: replicate.Commit{Step: replicate.NoStep}}
		member = func(key []byte) error { return r.Commit.member(c, key) }
	case "stream":
		r.Stream = new(StreamRow)
		member = func(key []byte) error { return r.Stream.member(c, key) }
	case "set":
		r.Set = &Set{Fields: map[string]json.RawMessage{}}
		member = func(key []byte) error { return r.Set.member(c, key) }
	case "delete":
		r.Delete = new(Delete)
		member = func(key []byte) error { return r.Delete.member(c, key) }
	case "digest":
		d := digestReader{Digest: new(Digest)}
		r.Digest = d.Digest
		member = func(key []byte) error { return d.member(c, key) }
		defer d.finish()
	}
	if err := c.object(member); err != nil {
		return err
	}
	if err := c.end(); err != nil {
		return err
	}
	return r.check()
}

// first returns the first key of an object and takes nothing.
func (c *cursor) first() ([]byte, error) {
	at := *c
	if err := at.take('{'); err != nil {
		return nil, err
	}
	if at.next() == '}' {
		return nil, nil
	}
	return at.key()
}

// check refuses rows without what everything else relies on.
func (r *Record) check() error {
	missing := func(what string) error { return replicate.Errorf(replicate.Corrupt, "record without %s", what) }
	switch {
	case r.Experiment != nil && r.Experiment.ID == "",
		r.Commit != nil && (r.Commit.ID == "" || r.Commit.Experiment == ""),
		r.Stream != nil && r.Stream.Experiment == "",
		r.Set != nil && r.Set.Experiment == "",
		r.Delete != nil && r.Delete.ID == "",
		r.Digest != nil && r.Digest.Experiment == "":
		return missing("an id")
	case r.Set != nil && r.Set.At.IsZero(), r.Delete != nil && r.Delete.At.IsZero():
		return missing("a time")
	case r.Stream != nil && (r.Stream.Stream == "" || r.Stream.Writer == ""):
		return missing("a stream and a writer")
	case r.Stream != nil && (r.Stream.Frame == nil) == (r.Stream.Inline == nil):
		return missing("exactly one of frame and inline")
	}
	return nil
}

func (e *ExperimentRow) member(c *cursor, key []byte) (err error) {
	switch string(key) {
	case "experiment":
		e.ID, err = c.id()
	case "created":
		e.Created, err = c.time()
	case "user":
		e.User, err = c.text()
	case "host":
		e.Host, err = c.text()
	case "directory":
		e.Directory, err = c.text()
	case "command":
		e.Command, err = c.texts()
	case "parent":
		e.Parent, err = c.id()
	default:
		known, err := e.Row.member(c, key)
		if known || err != nil {
			return err
		}
		if known, err = fact(c, &e.Experiment, key); known || err != nil {
			return err
		}
		return c.skip(0)
	}
	return err
}

func (r *CommitRow) member(c *cursor, key []byte) (err error) {
	switch string(key) {
	case "commit":
		r.ID, err = c.id()
	case "experiment":
		r.Experiment, err = c.id()
	case "parent":
		r.Parent, err = c.id()
	case "seq":
		r.Seq, err = c.count(math.MaxInt64)
	case "time":
		r.Time, err = c.time()
	case "step":
		r.Step, err = c.step()
	case "metrics":
		r.Metrics, err = c.values()
	case "message":
		r.Message, err = c.text()
	case "files":
		r.Files, err = c.count(math.MaxInt64)
	case "bytes":
		r.Bytes, err = c.count(math.MaxInt64)
	case "added":
		r.Added, err = c.count(math.MaxInt64)
	default:
		known, err := r.Row.member(c, key)
		if known || err != nil {
			return err
		}
		return c.skip(0)
	}
	return err
}

func (s *StreamRow) member(c *cursor, key []byte) (err error) {
	switch string(key) {
	case "stream":
		var kind string
		kind, err = c.text()
		s.Stream = StreamKind(kind)
	case "experiment":
		s.Experiment, err = c.id()
	case "writer":
		s.Writer, err = c.text()
	case "seq":
		s.Seq, err = c.count(math.MaxInt64)
	case "range":
		s.From, s.To, err = c.span()
	case "frame":
		if !c.null() {
			s.Frame = new(Ref)
			err = c.ref(s.Frame)
		}
	case "inline":
		s.Inline, err = c.base64()
	case "summary":
		s.Summary, err = c.summaries()
	default:
		known, err := s.Row.member(c, key)
		if known || err != nil {
			return err
		}
		return c.skip(0)
	}
	return err
}

func (s *Set) member(c *cursor, key []byte) (err error) {
	switch string(key) {
	case "set":
		s.Experiment, err = c.id()
	case "at":
		s.At, err = c.time()
	case "by":
		s.By, err = c.text()
	default:
		var raw []byte
		name := string(key)
		raw, err = c.raw()
		s.Fields[name] = raw[:len(raw):len(raw)]
	}
	return err
}

func (d *Delete) member(c *cursor, key []byte) (err error) {
	switch string(key) {
	case "delete":
		d.ID, err = c.id()
	case "experiment":
		d.Experiment, err = c.id()
	case "at":
		d.At, err = c.time()
	case "by":
		d.By, err = c.text()
	default:
		err = c.skip(0)
	}
	return err
}

// member takes the value of a key that all rows have, and reports whether it is one.
func (r *Row) member(c *cursor, key []byte) (known bool, err error) {
	switch string(key) {
	case "tree":
		err = c.array(func(i int) error {
			if i >= maxRefs {
				return c.errorf("more than %d frames", maxRefs)
			}
			r.Tree = append(r.Tree, Ref{})
			return c.ref(&r.Tree[i])
		})
	case "packs":
		err = c.array(func(i int) error {
			if i >= maxRefs {
				return c.errorf("more than %d packs", maxRefs)
			}
			h, err := c.pack()
			r.Packs = append(r.Packs, h)
			return err
		})
	case "lost":
		r.Lost, err = c.texts()
	case "before":
		r.Before, err = c.time()
	default:
		return false, nil
	}
	return true, err
}

// SetField sets the field of an experiment that a Set record names: status, ended, exit_code, error, name, params, metric, tags, note,
// git, python, machine, environment. A null makes it unknown again. Tags are an object of name to true or false; here they are added to and taken from
// e.Tags. An unknown field changes nothing.
func SetField(e *replicate.Experiment, field string, value []byte) error {
	c := &cursor{data: value}
	known, err := fact(c, e, []byte(field))
	if known && err == nil {
		err = c.end()
	}
	if err != nil {
		return &replicate.Error{Op: "read field", Path: field, Kind: replicate.Corrupt, Err: err}
	}
	return nil
}

// fact takes the value of a field that may be learnt after an experiment's start, and reports whether key is one.
func fact(c *cursor, e *replicate.Experiment, key []byte) (known bool, err error) {
	switch string(key) {
	case "name":
		e.Name, err = c.text()
	case "params":
		e.Params, err = c.values()
	case "metric":
		e.Metric, err = c.metric()
	case "status":
		var s string
		s, err = c.text()
		e.Status = replicate.Status(s)
	case "ended":
		e.Ended, err = c.time()
	case "exit_code":
		e.ExitCode, err = c.exitCode()
	case "error":
		e.Failure, err = document[replicate.Failure](c)
	case "tags":
		err = c.tags(e)
	case "note":
		e.Note, err = c.text()
	case "git":
		e.Git, err = document[replicate.Git](c)
	case "python":
		e.Python, err = document[replicate.Python](c)
	case "machine":
		e.Machine, err = document[replicate.Machine](c)
	case "run":
		e.Run, err = document[replicate.Run](c)
	case "environment":
		e.Environment, err = c.values()
	default:
		return false, nil
	}
	return true, err
}

// document takes an object whose keys a struct's tags name. A null is nil.
func document[T any](c *cursor) (*T, error) {
	if c.null() {
		return nil, nil
	}
	raw, err := c.raw()
	if err != nil {
		return nil, err
	}
	t := new(T)
	if err := json.Unmarshal(raw, t); err != nil {
		return nil, c.errorf("%v", err)
	}
	return t, nil
}

func (c *cursor) exitCode() (*int, error) {
	if c.null() {
		return nil, nil
	}
	n, err := c.int()
	code := int(n)
	return &code, err
}

func (c *cursor) step() (replicate.Step, error) {
	if c.null() {
		return replicate.NoStep, nil
	}
	n, err := c.int()
	return replicate.Step(n), err
}

func (c *cursor) texts() (list []string, err error) {
	err = c.array(func(int) error {
		s, err := c.text()
		list = append(list, s)
		return err
	})
	return list, err
}

// metric takes ["loss","minimize"].
func (c *cursor) metric() (*replicate.Metric, error) {
	list, err := c.texts()
	switch {
	case err != nil || list == nil:
		return nil, err
	case len(list) != 2:
		return nil, c.errorf("want a metric and its goal")
	}
	return &replicate.Metric{Name: list[0], Goal: replicate.Goal(list[1])}, nil
}

// span takes a half-open range.
func (c *cursor) span() (from, to int64, err error) {
	ends := [2]*int64{&from, &to}
	n := 0
	err = c.array(func(i int) (err error) {
		if n++; n > 2 {
			return c.errorf("want two numbers")
		}
		*ends[i], err = c.count(math.MaxInt64)
		return err
	})
	if err == nil && (n != 2 || from > to) {
		err = c.errorf("want a range")
	}
	return from, to, err
}

func (c *cursor) base64() ([]byte, error) {
	b, err := c.bytes()
	if err != nil || b == nil {
		return nil, err
	}
	dst := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Strict().Decode(dst, b)
	if err != nil {
		return nil, c.errorf("base64: %v", err)
	}
	return dst[:n], nil
}

// pack takes the name of a pack, which must be there.
func (c *cursor) pack() (replicate.Hash, error) {
	h, err := c.hash()
	if err == nil && h.IsZero() {
		err = c.errorf("want the name of a pack")
	}
	return h, err
}

// ref takes {"pack":…,"off":…,"len":…,"raw":…,"hash":…}.
func (c *cursor) ref(r *Ref) error {
	err := c.object(func(key []byte) (err error) {
		switch string(key) {
		case "pack":
			r.Pack, err = c.pack()
		case "off":
			err = c.uint32(&r.Off)
		case "len":
			err = c.uint32(&r.Len)
		case "raw":
			err = c.uint32(&r.Raw)
		case "hash":
			r.Hash, err = c.hash()
		default:
			err = c.skip(0)
		}
		return err
	})
	if err == nil && (r.Pack.IsZero() || r.Hash.IsZero()) {
		return c.errorf("frame without a pack or hash")
	}
	if err == nil {
		if err := r.check(); err != nil {
			return c.errorf("%v", err)
		}
	}
	return err
}

func (c *cursor) uint32(to *uint32) error {
	n, err := c.count(math.MaxUint32)
	*to = uint32(n)
	return err
}
