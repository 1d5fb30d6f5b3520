package repository

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/replicate/replicate"
)

const (
	// treeVersion is what this version writes and the highest it reads.
	treeVersion = 1
	// maxTreePiece bounds the raw frames that a tree is cut into, at line ends.
	maxTreePiece = 8 << 20
	// maxTreeLine bounds an entry's line. Path and target have at most 4 KiB each, which is 11 KiB as base64.
	maxTreeLine = 64 << 10
)

// encodeTree returns the contents of the frames of a tree, in order, and the packs it refers to. An Extent or Recipe with a zero Pack lies
// in the pack that the first frame of the tree will lie in; the list of packs has the zero name for it. Files and Bytes of t are set.
func encodeTree(t *Tree) (raws [][]byte, packs []replicate.Hash, err error) {
	if err := t.check(); err != nil {
		return nil, nil, &replicate.Error{Op: "write tree", Kind: replicate.Usage, Err: err}
	}
	var list packList
	var lines []byte
	var ends []int // of lines at which it may be cut
	for i := range t.Entries {
		start := len(lines)
		lines = t.Entries[i].appendLine(lines, &list)
		if len(lines)-start > maxTreeLine {
			return nil, nil, replicate.Errorf(replicate.Usage, "write tree: line of %q is longer than %d", t.Entries[i].Path, maxTreeLine)
		}
		ends = append(ends, len(lines))
	}
	piece := appendTreeHead(nil, t, list.names)
	if len(piece) > maxTreePiece {
		return nil, nil, replicate.Errorf(replicate.Usage, "write tree: %d packs are too many", len(list.names))
	}
	from := 0
	for i, end := range ends {
		last := i == len(ends)-1
		if last || len(piece)+ends[i+1]-from > maxTreePiece {
			raws = append(raws, append(piece, lines[from:end]...))
			from, piece = end, nil
		}
	}
	if len(ends) == 0 {
		raws = append(raws, piece)
	}
	return raws, list.names, nil
}

func appendTreeHead(dst []byte, t *Tree, packs []replicate.Hash) []byte {
	dst = append(dst, `{"tree":1,"packs":[`...)
	for i, p := range packs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		if !p.IsZero() {
			dst = appendHex(dst, p[:])
		}
		dst = append(dst, '"')
	}
	dst = append(dst, `],"files":`...)
	dst = strconv.AppendInt(dst, t.Files, 10)
	dst = append(dst, `,"bytes":`...)
	dst = strconv.AppendInt(dst, t.Bytes, 10)
	return append(dst, "}\n"...)
}

// appendText appends a member for a text of any bytes: under plain if it is UTF-8, else as base64 under other.
func appendText(dst []byte, plain, other, s string) []byte {
	dst = append(dst, '"')
	if utf8.ValidString(s) {
		dst = append(append(dst, plain...), `":`...)
		return replicate.AppendJSONString(dst, s)
	}
	dst = append(append(dst, other...), `":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, []byte(s))
	return append(dst, '"')
}

func (e *Entry) appendLine(dst []byte, packs *packList) []byte {
	dst = append(dst, '{')
	dst = appendText(dst, "p", "b", e.Path)
	switch e.Kind {
	case Link:
		dst = append(dst, `,"k":"l"`...)
	case Dir:
		dst = append(dst, `,"k":"d"`...)
	}
	dst = append(dst, `,"m":"`...)
	dst = append(dst, '0'+byte(e.Mode>>9), '0'+byte(e.Mode>>6&7), '0'+byte(e.Mode>>3&7), '0'+byte(e.Mode&7), '"')
	if e.Kind == File {
		dst = append(dst, `,"s":`...)
		dst = strconv.AppendInt(dst, e.Size, 10)
	}
	dst = append(dst, `,"t":`...)
	dst = strconv.AppendInt(dst, e.Mtime, 10)
	switch {
	case e.Kind == Link:
		dst = append(dst, ',')
		dst = appendText(dst, "to", "tb", e.Target)
	case e.Kind == File:
		dst = append(dst, `,"h":"`...)
		dst = append(appendHex(dst, e.Hash[:]), '"')
		if e.Torn {
			dst = append(dst, `,"torn":true`...)
		}
		dst = e.appendPlace(dst, packs)
	}
	return append(dst, "}\n"...)
}

func (e *Entry) appendPlace(dst []byte, packs *packList) []byte {
	if e.Recipe != nil {
		dst = append(dst, `,"r":[`...)
		return append(appendPlace(dst, *e.Recipe, 0, true, packs), ']')
	}
	if len(e.Extents) == 0 {
		return dst
	}
	dst = append(dst, `,"at":[`...)
	for i, x := range e.Extents {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '[')
		dst = append(appendPlace(dst, x.Ref, x.From, len(e.Extents) > 1, packs), ']')
	}
	return append(dst, ']')
}

func appendPlace(dst []byte, r Ref, from uint32, hash bool, packs *packList) []byte {
	dst = strconv.AppendInt(dst, int64(packs.add(r.Pack)), 10)
	for _, n := range []uint32{r.Off, r.Len, r.Raw} {
		dst = append(dst, ',')
		dst = strconv.AppendUint(dst, uint64(n), 10)
	}
	switch {
	case hash:
		dst = append(dst, `,"`...)
		dst = append(appendHex(dst, r.Hash[:]), '"')
	case from != 0:
		dst = append(dst, ',')
		dst = strconv.AppendUint(dst, uint64(from), 10)
	}
	return dst
}

// decodeTree reads the contents of the frames of a tree whose first frame lies in the pack own. Every Extent and Recipe gets its pack's name.
func decodeTree(raws [][]byte, own replicate.Hash) (*Tree, error) {
	t := &Tree{}
	d := treeDecoder{own: own}
	for _, raw := range raws {
		// The room is for what a frame can hold: the shortest line that is written has 40 bytes, whatever the first line says.
		t.Entries = slices.Grow(t.Entries, min(bytes.Count(raw, []byte{'\n'}), len(raw)/40))
		err := d.decode(raw, func(e *Entry) error {
			t.Entries = append(t.Entries, *e)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	t.Files, t.Bytes = d.check.files, d.check.bytes
	return t, nil
}

// A treeDecoder reads the contents of the frames of a tree, one after another.
type treeDecoder struct {
	own          replicate.Hash // the pack that the first frame lies in
	packs        []replicate.Hash
	frames       int
	lines        int
	files, bytes int64 // as the first line says
	check        treeCheck
	entry        Entry
	slab         []Extent // room for the extents of the next entries, so that not each of them is an allocation
}

// decode reads the next frame and calls each for its entries, checked, in order. Each is valid until the next one; its Extents stay.
func (d *treeDecoder) decode(raw []byte, each func(*Entry) error) error {
	var stopped error
	err := eachLine(raw, func(line []byte, off int) (err error) {
		if d.lines++; d.lines == 1 {
			err = d.head(line)
		} else if err = d.line(line); err == nil {
			err = d.check.next(&d.entry)
		}
		if err != nil {
			return fmt.Errorf("frame %d, line at byte %d: %w", d.frames, off, err)
		}
		if d.lines > 1 {
			stopped = each(&d.entry)
		}
		return stopped
	})
	d.frames++
	if err != nil && err != stopped {
		return treeError(err)
	}
	return err
}

// end is called behind the last frame.
func (d *treeDecoder) end() error {
	switch c := &d.check; {
	case d.frames == 0:
		return treeError(errors.New("no frames"))
	case d.lines == 0:
		return treeError(errors.New("no lines"))
	case c.files != d.files || c.bytes != d.bytes:
		return treeError(fmt.Errorf("holds %d files of %d bytes, its first line says %d of %d", c.files, c.bytes, d.files, d.bytes))
	}
	return nil
}

func treeError(err error) error {
	return &replicate.Error{Op: "read tree", Kind: replicate.Corrupt, Err: err}
}

// head reads the first line.
func (d *treeDecoder) head(line []byte) error {
	c := &cursor{data: line}
	version := int64(0)
	err := c.object(func(key []byte) (err error) {
		switch string(key) {
		case "tree":
			version, err = c.count(math.MaxInt64)
		case "packs":
			err = c.array(func(int) error {
				h, err := c.hash()
				if h.IsZero() {
					h = d.own
				}
				d.packs = append(d.packs, h)
				return err
			})
		case "files":
			d.files, err = c.count(math.MaxInt64)
		case "bytes":
			d.bytes, err = c.count(math.MaxInt64)
		default:
			err = c.skip(0)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case version == 0:
		return errors.New("not the first line of a tree")
	case version > treeVersion:
		return fmt.Errorf("version %d needs a newer replicate", version)
	}
	return c.end()
}

// line reads the line of an entry.
func (d *treeDecoder) line(line []byte) error {
	if len(line) > maxTreeLine {
		return fmt.Errorf("longer than %d", maxTreeLine)
	}
	d.entry = Entry{}
	c := &cursor{data: line}
	if err := c.object(func(key []byte) error { return d.member(c, &d.entry, key) }); err != nil {
		return err
	}
	return c.end()
}

func (d *treeDecoder) member(c *cursor, e *Entry, key []byte) (err error) {
	var b []byte
	switch string(key) {
	case "p":
		e.Path, err = c.text()
	case "b":
		b, err = c.base64()
		e.Path = string(b)
	case "k":
		e.Kind, err = c.entryKind()
	case "m":
		e.Mode, err = c.mode()
	case "s":
		e.Size, err = c.count(math.MaxInt64)
	case "t":
		e.Mtime, err = c.int()
	case "h":
		e.Hash, err = c.hash()
	case "to":
		e.Target, err = c.text()
	case "tb":
		b, err = c.base64()
		e.Target = string(b)
	case "torn":
		e.Torn, err = c.bool()
	case "at":
		e.Extents, err = d.extents(c)
	case "r":
		var x Extent
		x, err = d.extent(c)
		e.Recipe = &x.Ref
	default:
		err = c.skip(0)
	}
	return err
}

func (c *cursor) entryKind() (EntryKind, error) {
	s, err := c.bytes()
	switch {
	case err != nil:
		return 0, err
	case string(s) == "l":
		return Link, nil
	case string(s) == "d":
		return Dir, nil
	}
	return 0, c.errorf("entry of kind %q needs a newer replicate", s)
}

func (c *cursor) mode() (uint32, error) {
	s, err := c.bytes()
	if err != nil {
		return 0, err
	}
	mode, err := strconv.ParseUint(string(s), 8, 16)
	if err != nil || mode > 0o7777 {
		return 0, c.errorf("want a mode as 0644")
	}
	return uint32(mode), nil
}

func (d *treeDecoder) extents(c *cursor) ([]Extent, error) {
	if cap(d.slab)-len(d.slab) < maxInline {
		d.slab = make([]Extent, 0, 256)
	}
	start := len(d.slab)
	err := c.array(func(i int) error {
		if i >= maxInline {
			return c.errorf("more than %d extents", maxInline)
		}
		x, err := d.extent(c)
		d.slab = append(d.slab, x)
		return err
	})
	switch len(d.slab) - start {
	case 0:
		return nil, err
	case 1:
		d.slab[start].Hash = replicate.Hash{} // the file's own verifies it
	}
	return d.slab[start:len(d.slab):len(d.slab)], err
}

// extent takes [pack#,off,stored,raw], [pack#,off,stored,raw,from] or [pack#,off,stored,raw,"hash"].
func (d *treeDecoder) extent(c *cursor) (x Extent, err error) {
	n := 0
	err = c.array(func(i int) (err error) {
		switch n = i + 1; i {
		case 0:
			var pack int64
			if pack, err = c.count(int64(len(d.packs)) - 1); err == nil {
				x.Pack = d.packs[pack]
			}
		case 1:
			err = c.uint32(&x.Off)
		case 2:
			err = c.uint32(&x.Len)
		case 3:
			err = c.uint32(&x.Raw)
		case 4:
			if c.next() == '"' {
				x.Hash, err = c.hash()
			} else {
				err = c.uint32(&x.From)
			}
		default:
			err = c.errorf("more than five numbers")
		}
		return err
	})
	if err == nil && n < 4 {
		err = c.errorf("want a pack, a place and two sizes")
	}
	return x, err
}
