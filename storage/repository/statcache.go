package repository

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate"
)

// The stat cache remembers which content stands at which path of a project, so that a commit need not read what did not change. It is a file
// <root>/.replicate/stat-<repository id>, as places differ between repositories:
//
//	"RPLSTAT1" | packs u32, 32 B each | files u32, then per file, in the order of a tree:
//	path length u16, path | size, mtime, ctime, inode, device u64 | hash 32 B | extents u8, or 255 for a recipe
//	per extent: pack number, off, stored, raw, from u32 | hash 32 B
//	of a recipe: an extent, then u32 and so many pack numbers: the packs of its chunks
//	BLAKE3 of all before
//
// It is replaced by rename and disposable: a damaged one counts as empty.

const (
	statMagic = "RPLSTAT1"
	statFixed = 2 + 5*8 + 32 + 1
	// maxStatCache is ten million files.
	maxStatCache = 2 << 30

	// racyFine and racyCoarse are how much older than the moment of reading the times of a file must be for its content to be known by
	// them: a write within one tick of the clock behind the reading would leave the same times. Linux ticks 4 ms to 10 ms, FAT 2 s.
	racyFine   = 50 * time.Millisecond
	racyCoarse = 2 * time.Second

	// neverMatches is the ctime in the cache of a file that was not that old: its content must be looked at again.
	neverMatches = 0
)

// A cachedFile is what the content of a path is as long as its stat stays.
type cachedFile struct {
	path               string
	size, mtime, ctime int64
	inode, device      uint64
	hash               replicate.Hash
	extents            []Extent
	recipe             *Ref
	packs              []replicate.Hash // of the recipe's chunks
}

// matches reports whether st is the stat that the content was read under.
func (c *cachedFile) matches(st *stat) bool {
	return c.ctime != neverMatches && c.size == st.size && c.mtime == st.mtime && c.ctime == st.ctime && c.inode == st.inode && c.device == st.device
}

// settled reports whether a stat that was taken at a moment of the file system's clock or later tells all later changes apart.
func (s *stat) settled(moment time.Time) bool {
	margin := racyFine
	if s.mtime%int64(time.Second) == 0 && s.ctime%int64(time.Second) == 0 {
		margin = racyCoarse
	}
	return max(s.mtime, s.ctime) < moment.Add(-margin).UnixNano()
}

// statCachePath is where the stat cache of a project for a repository is.
func statCachePath(root, repository string) string {
	return filepath.Join(root, ".replicate", "stat-"+repository)
}

// fileClock returns the time of the file system that holds a directory, by making a file there.
func fileClock(dir string) (time.Time, error) {
	f, err := os.CreateTemp(dir, "clock-*")
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// loadStatCache returns the files of a stat cache, none if it is missing or damaged.
func loadStatCache(path string) []cachedFile {
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxStatCache {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	files, err := decodeStatCache(data)
	if err != nil {
		return nil
	}
	return files
}

// saveStatCache replaces a stat cache. It is not synced: after a crash of the machine the hash in it shows what is whole.
func saveStatCache(path string, files []cachedFile) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".stat-*")
	if err != nil {
		return err
	}
	_, err = f.Write(encodeStatCache(files))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func encodeStatCache(files []cachedFile) []byte {
	var packs packList
	var b []byte
	for i := range files {
		b = files[i].append(b, &packs)
	}
	out := make([]byte, 0, len(b)+32*len(packs.names)+64)
	out = append(out, statMagic...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(packs.names)))
	for _, name := range packs.names {
		out = append(out, name[:]...)
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(files)))
	out = append(out, b...)
	sum := hashOf(out)
	return append(out, sum[:]...)
}

func (c *cachedFile) append(b []byte, packs *packList) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(c.path)))
	b = append(b, c.path...)
	for _, n := range []uint64{uint64(c.size), uint64(c.mtime), uint64(c.ctime), c.inode, c.device} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = append(b, c.hash[:]...)
	if c.recipe == nil {
		b = append(b, byte(len(c.extents)))
		for _, x := range c.extents {
			b = appendStatExtent(b, x, packs)
		}
		return b
	}
	b = append(b, 255)
	b = appendStatExtent(b, Extent{Ref: *c.recipe}, packs)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.packs)))
	for _, name := range c.packs {
		b = binary.LittleEndian.AppendUint32(b, uint32(packs.add(name)))
	}
	return b
}

func appendStatExtent(b []byte, x Extent, packs *packList) []byte {
	for _, n := range []uint32{uint32(packs.add(x.Pack)), x.Off, x.Len, x.Raw, x.From} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(b, x.Hash[:]...)
}

func decodeStatCache(data []byte) ([]cachedFile, error) {
	if len(data) < len(statMagic)+32 || !bytes.HasPrefix(data, []byte(statMagic)) {
		return nil, errors.New("no stat cache")
	}
	body, sum := data[:len(data)-32], replicate.Hash(data[len(data)-32:])
	if hashOf(body) != sum {
		return nil, errors.New("damaged stat cache")
	}
	d := statDecoder{data: body, at: len(statMagic)}
	files := d.files()
	if d.err == nil && d.at != len(body) {
		d.fail("unexpected bytes")
	}
	return files, d.err
}

// A statDecoder takes fields from data. Behind the first error every field is zero.
type statDecoder struct {
	data  []byte
	at    int
	err   error
	packs []replicate.Hash
}

func (d *statDecoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("stat cache at byte %d: %s", d.at, what)
	}
	d.at = len(d.data)
}

// take returns the next n bytes, zeros if there are less.
func (d *statDecoder) take(n int) []byte {
	if len(d.data)-d.at < n {
		d.fail("ends in the middle")
		return make([]byte, n)
	}
	d.at += n
	return d.data[d.at-n : d.at]
}

func (d *statDecoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *statDecoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

// count takes a number of things of at least size bytes each, which cannot be more than the rest holds.
func (d *statDecoder) count(size int) int {
	n := int64(d.u32())
	if n*int64(size) > int64(len(d.data)-d.at) {
		d.fail("impossible count")
		return 0
	}
	return int(n)
}

func (d *statDecoder) pack() replicate.Hash {
	n := int64(d.u32())
	if n >= int64(len(d.packs)) {
		d.fail("unknown pack")
		return replicate.Hash{}
	}
	return d.packs[n]
}

func (d *statDecoder) files() []cachedFile {
	d.packs = make([]replicate.Hash, d.count(32))
	for i := range d.packs {
		d.packs[i] = replicate.Hash(d.take(32))
	}
	files := make([]cachedFile, d.count(statFixed))
	for i := range files {
		d.file(&files[i])
		if d.err == nil && i > 0 && ComparePaths(files[i-1].path, files[i].path) >= 0 {
			d.fail("files out of order")
		}
	}
	return files
}

func (d *statDecoder) file(c *cachedFile) {
	c.path = string(d.take(int(binary.LittleEndian.Uint16(d.take(2)))))
	c.size, c.mtime, c.ctime = int64(d.u64()), int64(d.u64()), int64(d.u64())
	c.inode, c.device = d.u64(), d.u64()
	c.hash = replicate.Hash(d.take(32))
	switch n := int(d.take(1)[0]); {
	case n == 255:
		c.recipe = &d.extent().Ref
		c.packs = make([]replicate.Hash, d.count(4))
		for i := range c.packs {
			c.packs[i] = d.pack()
		}
	case n > maxInline:
		d.fail("too many extents")
	case n > 0:
		c.extents = make([]Extent, n)
		for i := range c.extents {
			c.extents[i] = *d.extent()
		}
	}
	e := c.entry()
	if d.err == nil && (e.check() != nil || checkPath(c.path) != nil) {
		d.fail("impossible file")
	}
}

func (d *statDecoder) extent() *Extent {
	x := &Extent{Ref: Ref{Pack: d.pack(), Off: d.u32(), Len: d.u32(), Raw: d.u32()}, From: d.u32()}
	x.Hash = replicate.Hash(d.take(32))
	return x
}

// entry returns the content as an entry of a tree, without mode.
func (c *cachedFile) entry() Entry {
	return Entry{Path: c.path, Kind: File, Size: c.size, Mtime: c.mtime, Hash: c.hash, Extents: c.extents, Recipe: c.recipe}
}
