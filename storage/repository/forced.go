package repository

import (
	"archive/zip"
	"encoding/binary"
	"io"
	"math"
	"path"
	"slices"
	"strings"
)

const (
	// minForced is the size from which a tensor gets chunks of its own: smaller ones share theirs with their neighbours, as each chunk costs
	// 100 bytes and a place in a read.
	minForced = 64 << 10
	// maxTensorHeader bounds what is read of a .safetensors file to find its tensors: 100,000 of them.
	maxTensorHeader = 16 << 20
	// maxZipDirectory bounds the same for a ZIP archive. Without these cuts less is found again, nothing else.
	maxZipDirectory = 16 << 20
)

// forcedCuts returns the offsets at which chunks of a file must begin, besides those that its content asks for: where tensors begin
// and end in .safetensors, where members begin and end in ZIP archives (.pt, .pth, .npz, .zip). So a layer that did not change is the same
// chunks wherever it lies. A file that is not what its name says has none.
func forcedCuts(name string, r io.ReaderAt, size int64) []int64 {
	var cuts []int64
	switch strings.ToLower(path.Ext(name)) {
	case ".safetensors":
		cuts = tensorCuts(r, size)
	case ".pt", ".pth", ".npz", ".zip":
		cuts = zipCuts(r, size)
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// tensorCuts reads the header of a .safetensors file: its length in 8 bytes, then {"name":{"dtype":…,"shape":…,"data_offsets":[from,to]},…},
// offsets counted from the header's end.
func tensorCuts(r io.ReaderAt, size int64) []int64 {
	var length [8]byte
	if readFull(r, length[:], 0) != nil {
		return nil
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxTensorHeader || int64(n)+8 > size {
		return nil
	}
	header := make([]byte, n)
	if readFull(r, header, 8) != nil {
		return nil
	}
	base := int64(n) + 8
	var cuts []int64
	c := &cursor{data: header}
	err := c.object(func(key []byte) error {
		if string(key) == "__metadata__" {
			return c.skip(0)
		}
		return c.object(func(key []byte) error {
			if string(key) != "data_offsets" {
				return c.skip(0)
			}
			from, to, err := c.span()
			if err == nil && to <= size-base && to-from >= minForced {
				cuts = append(cuts, base+from, base+to)
			}
			return err
		})
	})
	if err != nil {
		return nil
	}
	return cuts
}

// zipCuts reads the central directory of a ZIP archive without a comment.
func zipCuts(r io.ReaderAt, size int64) []int64 {
	var end [22]byte
	if size < int64(len(end)) || readFull(r, end[:], size-int64(len(end))) != nil || string(end[:4]) != "PK\x05\x06" {
		return nil
	}
	members, directory := binary.LittleEndian.Uint16(end[10:]), binary.LittleEndian.Uint32(end[12:])
	if members == math.MaxUint16 || directory > maxZipDirectory {
		return nil
	}
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return nil
	}
	var cuts []int64
	for _, f := range archive.File {
		if f.CompressedSize64 < minForced || f.CompressedSize64 > uint64(size) {
			continue
		}
		from, err := f.DataOffset()
		if err != nil || from > size-int64(f.CompressedSize64) {
			continue
		}
		cuts = append(cuts, from, from+int64(f.CompressedSize64))
	}
	return cuts
}
