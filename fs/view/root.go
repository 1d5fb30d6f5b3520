package view

import (
	"context"
	_ "embed"
	"strings"
)

//go:embed README.txt
var readme string

var readmeContent = strings.NewReader(readme)

// readmeTime is 2026-01-01: the text belongs to the program, not to the repository.
const readmeTime = 1767225600e9

// rootNode returns the node that a name of the root stands for now, errNone if nothing does.
func (v *View) rootNode(ctx context.Context, s *snapshot, k kind) (ID, error) {
	switch k {
	case readmeName:
		return readmeFile, nil
	case experimentsCSV, experimentsJSONL:
		return tableID(k, s.version), nil
	case rootExperiments:
		return experimentsDir, nil
	case rootCommits:
		return commitsDir, nil
	case rootLatest:
		e, err := v.newest(ctx, s)
		if err != nil {
			return 0, err
		}
		if e == nil {
			return 0, errNone
		}
		return v.linkTo(ctx, s, experimentLink, e.Ord, fromRoot)
	}
	return 0, errNone
}

// tableID is a table of all experiments as of a version of the index.
func tableID(k kind, version int64) ID { return newID(rootFile, version&maxOrd, int64(k)) }

func (v *View) lookupRoot(ctx context.Context, s *snapshot, name string) (ID, error) {
	k := kindOf(rootNames[:], name)
	if k != experimentsCSV && k != experimentsJSONL {
		return v.rootNode(ctx, s, k)
	}
	size, err := v.tables(ctx, s.version) // another process may have brought the index further
	return tableID(k, size.version), err
}

// tableAttr is what stat says of a table. Nothing is rendered for it.
func (v *View) tableAttr(ctx context.Context, s *snapshot, id ID) (Attr, error) {
	size, err := v.tables(ctx, s.version)
	if err != nil {
		return Attr{}, err
	}
	a := Attr{Mode: fileMode, Size: size.of(kind(id.entry()))}
	if tableID(kind(id.entry()), size.version) != id {
		content, ok := v.rendered.peek(id)
		if !ok {
			return Attr{}, ErrStale
		}
		a.Size = content.Size()
	}
	a.Mtime, err = v.newestTime(ctx, s)
	return a, err
}

func (v *View) listRoot(ctx context.Context, s *snapshot, cookie uint64, yield func(uint64, Entry) bool) error {
	for k := readmeName; k < lastRoot; k++ {
		at := uint64(k) + FirstCookie
		if at <= cookie {
			continue
		}
		id, err := v.rootNode(ctx, s, k)
		if err == errNone {
			continue
		}
		if err != nil {
			return err
		}
		if !yield(at, v.entry(ctx, s, rootNames[k], id)) {
			return nil
		}
	}
	return nil
}

// entry describes a node under a name, with its attributes where they cost nothing.
func (v *View) entry(ctx context.Context, s *snapshot, name string, id ID) Entry {
	e := Entry{Name: name, ID: id}
	switch id.class() {
	case experimentLink, commitLink:
		e.Mode = linkMode
	case rootFile, fileOf, growingOf, commitJSON:
		e.Mode = fileMode
		if content, ok := v.rendered.peek(id); ok {
			e.Attr = &Attr{Mode: fileMode, Size: content.Size(), Mtime: content.mtime.Load()}
		}
		return e
	default:
		e.Mode = dirMode
		if id == readmeFile {
			e.Mode = fileMode
		}
	}
	if a, err := v.Attr(ctx, id); err == nil {
		e.Attr = &a
	}
	return e
}

// newestTime is when anything last changed.
func (v *View) newestTime(ctx context.Context, s *snapshot) (int64, error) {
	names, err := v.namesOf(ctx, s, ofExperiments)
	if err != nil {
		return 0, err
	}
	return names.newest, nil
}

func (v *View) lookupExperiment(ctx context.Context, s *snapshot, name string) (ID, error) {
	names, err := v.namesOf(ctx, s, ofExperiments)
	if err != nil {
		return 0, err
	}
	if ord, ok := names.find(name); ok {
		listed, _ := names.nameOf(ord)
		if listed == name {
			return newID(dirOf, ord, int64(experimentKind)), nil
		}
		e, err := v.experiment(ctx, s, ord)
		if err != nil || !e.ID.HasPrefix(name) {
			return 0, errNone
		}
		return linkID(experimentLink, ord, besides, len(listed)), nil
	}
	return v.lookupByName(ctx, s, name)
}

// lookupByName finds the newest experiment of a name that people gave. It is another spelling, so it is a link.
func (v *View) lookupByName(ctx context.Context, s *snapshot, name string) (ID, error) {
	text, ok := Unescape(name)
	if !ok || strings.ContainsRune(text, '@') {
		return 0, errNone
	}
	t, err := v.index.Resolve(ctx, text)
	if err != nil || t.Commit != nil || t.Experiment.Name != text {
		return 0, errNone
	}
	return v.linkTo(ctx, s, experimentLink, t.Experiment.Ord, besides)
}

func (v *View) listExperiments(ctx context.Context, s *snapshot, cookie uint64, yield func(uint64, Entry) bool) error {
	names, err := v.namesOf(ctx, s, ofExperiments)
	if err != nil {
		return err
	}
	for i := names.from(after(cookie)); i < names.len(); i++ {
		ord := names.ords[i]
		e := Entry{Name: names.name(i), ID: newID(dirOf, ord, int64(experimentKind)), Mode: dirMode,
			Attr: &Attr{Mode: dirMode, Mtime: names.times[i]}}
		if !yield(uint64(ord)+FirstCookie, e) {
			return nil
		}
	}
	return nil
}

// after returns the first ordinal behind a cookie, in lists that are ordered by ordinals.
func after(cookie uint64) int64 { return int64(max(cookie, FirstCookie-1)) + 1 - FirstCookie }
