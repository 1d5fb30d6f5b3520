package repository

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/zeebo/blake3"

	"github.com/replicate/replicate"
)

// fill fills b with bytes that no codec makes smaller, the same for the same seed on every machine: SplitMix64.
func fill(b []byte, seed uint64) []byte {
	for i := 0; i < len(b); i += 8 {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		copy(b[i:], word[:])
	}
	return b
}

// chunksOf returns the hashes of the chunks of a file, and their bytes by hash.
func chunksOf(t testing.TB, r io.Reader, forced []int64) (order []replicate.Hash, bytesOf map[replicate.Hash]int) {
	t.Helper()
	bytesOf = map[replicate.Hash]int{}
	c := newChunker(r, forced)
	for {
		b, err := c.next()
		if err == io.EOF {
			return order, bytesOf
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 || len(b) > maxChunk {
			t.Fatalf("chunk of %d bytes", len(b))
		}
		h := hashOf(b)
		order = append(order, h)
		bytesOf[h] = len(b)
	}
}

// The constants of these two tests are part of the format: other values find nothing again in repositories that exist.
func TestGearTableIsTheFormats(t *testing.T) {
	var raw []byte
	for _, v := range gearTable {
		raw = binary.LittleEndian.AppendUint64(raw, v)
	}
	sum := blake3.Sum256(raw)
	if got := hex.EncodeToString(sum[:]); got != goldenGear {
		t.Errorf("the gear table is %s", got)
	}
}

func TestChunksAreTheFormats(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"random", fill(make([]byte, 32<<20), 1), goldenRandom},
		{"zeros", make([]byte, 9<<20+1), goldenZeros},
		{"text", []byte(strings.Repeat("step,loss\n1,0.31\n", 200_000)), goldenText},
	} {
		t.Run(tt.name, func(t *testing.T) {
			order, sizes := chunksOf(t, bytes.NewReader(tt.data), nil)
			h := blake3.New()
			for _, chunk := range order {
				fmt.Fprintln(h, sizes[chunk], chunk)
			}
			if got := hex.EncodeToString(h.Sum(nil)); got != tt.want {
				t.Errorf("%d chunks, together %s", len(order), got)
			}
		})
	}
}

func TestChunksHaveTheSizesTheyShould(t *testing.T) {
	order, sizes := chunksOf(t, bytes.NewReader(fill(make([]byte, 64<<20), 7)), nil)
	mean := 64 << 20 / len(order)
	if mean < 900<<10 || mean > 1400<<10 {
		t.Errorf("chunks have %d bytes in the mean", mean)
	}
	for _, h := range order[:len(order)-1] {
		if sizes[h] <= minChunk {
			t.Errorf("chunk of %d bytes", sizes[h])
		}
	}
}

func TestChunksDoNotDependOnReads(t *testing.T) {
	data := fill(make([]byte, 12<<20), 3)
	forced := []int64{1, 100, 5 << 20, 5<<20 + 70<<10, 12 << 20, 30 << 20}
	want, _ := chunksOf(t, bytes.NewReader(data), forced)
	for name, r := range map[string]io.Reader{
		"half":     iotest.HalfReader(bytes.NewReader(data)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		if got, _ := chunksOf(t, r, forced); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d other chunks", name, len(got))
		}
	}
}

func TestChunkerGivesEverything(t *testing.T) {
	data := fill(make([]byte, 20<<20), 1)
	for _, tt := range []struct {
		name   string
		data   []byte
		forced []int64
	}{
		{"empty", nil, nil},
		{"empty with a cut", nil, []int64{0, 5}},
		{"one byte", data[:1], nil},
		{"cuts", data, []int64{0, 1, 100, 5 << 20, 20 << 20, 30 << 20}},
		{"zeros", make([]byte, 9<<20), nil},
		{"exactly the largest", make([]byte, maxChunk), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChunker(bytes.NewReader(tt.data), tt.forced)
			ends := map[int64]bool{0: true}
			at := 0
			for {
				b, err := c.next()
				if err == io.EOF {
					break
				}
				if err != nil || len(b) == 0 || !bytes.Equal(b, tt.data[at:at+len(b)]) {
					t.Fatalf("chunk of %d bytes at %d: %v", len(b), at, err)
				}
				at += len(b)
				ends[int64(at)] = true
			}
			if at != len(tt.data) {
				t.Errorf("%d bytes of %d", at, len(tt.data))
			}
			for _, cut := range tt.forced {
				if cut <= int64(at) && !ends[cut] {
					t.Errorf("no chunk ends at %d", cut)
				}
			}
		})
	}
}

func TestChunkerReportsReadErrors(t *testing.T) {
	broken := errors.New("broken")
	c := newChunker(io.MultiReader(bytes.NewReader(make([]byte, 5<<20)), iotest.ErrReader(broken)), nil)
	n := 0
	for {
		b, err := c.next()
		if err != nil {
			if !errors.Is(err, broken) {
				t.Errorf("error %v", err)
			}
			break
		}
		n += len(b)
	}
	if n > 5<<20 {
		t.Errorf("%d bytes", n)
	}
}

// shared returns how many bytes of the chunks of b are chunks of a.
func shared(t *testing.T, a, b []byte, name string) int {
	t.Helper()
	cutsOf := func(data []byte) []int64 { return forcedCuts(name, bytes.NewReader(data), int64(len(data))) }
	_, first := chunksOf(t, bytes.NewReader(a), cutsOf(a))
	order, second := chunksOf(t, bytes.NewReader(b), cutsOf(b))
	n := 0
	for _, h := range order {
		if first[h] > 0 {
			n += second[h]
		}
	}
	return n
}

func TestMovedBytesAreFoundAgain(t *testing.T) {
	data := fill(make([]byte, 30<<20), 5)
	moved := append(fill(make([]byte, 12345), 6), data...)
	if n := shared(t, data, moved, "x.bin"); n < 26<<20 {
		t.Errorf("of 30 MiB behind an insertion %d bytes are found again", n)
	}
	changed := bytes.Clone(data)
	fill(changed[10<<20:12<<20], 8)
	if n := shared(t, data, changed, "x.bin"); n < 23<<20 {
		t.Errorf("of 28 MiB around a change %d bytes are found again", n)
	}
}

// safetensors returns a file of tensors, in order.
func safetensors(note string, tensors ...[]byte) []byte {
	header, at := fmt.Sprintf(`{"__metadata__":{"note":%q}`, note), 0
	for i, tensor := range tensors {
		header += fmt.Sprintf(`,"layer.%d":{"dtype":"F32","shape":[%d],"data_offsets":[%d,%d]}`, i, len(tensor)/4, at, at+len(tensor))
		at += len(tensor)
	}
	header += "}"
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	return append(file, bytes.Join(tensors, nil)...)
}

// torchZip returns an archive as torch.save writes it: stored members whose data begin at multiples of 64, reached by padding in the extra field.
func torchZip(t *testing.T, pickle []byte, tensors ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, data := range append([][]byte{pickle}, tensors...) {
		name := fmt.Sprintf("archive/data/%d", i)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		pad := 64 - (b.Len()+30+len(name)+4)%64
		extra := append([]byte{'F', 'B', byte(pad), 0}, bytes.Repeat([]byte("Z"), pad)...)
		f, err := w.CreateRaw(&zip.FileHeader{Name: name, Extra: extra, CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)), CRC32: 1})
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnchangedTensorsAreTheSameChunks(t *testing.T) {
	big, small, tiny := fill(make([]byte, 5<<20), 1), fill(make([]byte, 300<<10), 2), fill(make([]byte, 4<<10), 3)
	other := fill(make([]byte, 5<<20), 4)
	for _, tt := range []struct {
		name string
		a, b []byte
	}{
		{"x.safetensors", safetensors("a", other, tiny, big, tiny, small, big), safetensors("longer", small, big, tiny, other[:3<<20], small)},
		{"x.SafeTensors", safetensors("", big, small), safetensors("", small, other, big)},
		{"x.pt", torchZip(t, []byte("pickle"), other, tiny, big, tiny, small), torchZip(t, []byte("longer pickle"), small, big, tiny, other[:3<<20], small)},
		{"x.npz", torchZip(t, nil, big, small), torchZip(t, nil, small, other, big)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n := shared(t, tt.a, tt.b, tt.name); n < len(big)+len(small) {
				t.Errorf("%d bytes are found again, want at least %d", n, len(big)+len(small))
			}
			if n := shared(t, tt.a, tt.b, "x.bin"); n >= len(big)+len(small) {
				t.Error("they are found again without forced cuts: the test shows nothing")
			}
		})
	}
}

func TestForcedCutsOfOtherFiles(t *testing.T) {
	whole := torchZip(t, nil, fill(make([]byte, 1<<20), 1))
	tensors := safetensors("", fill(make([]byte, 1<<20), 1))
	lying := bytes.Replace(bytes.Clone(tensors), []byte("1048576]"), []byte("9048576]"), 1)
	huge := binary.LittleEndian.AppendUint64(nil, 1<<62)
	for _, tt := range []struct {
		name string
		data []byte
		want int
	}{
		{"sound.pt", whole, 2},
		{"torn.pt", whole[:len(whole)-1], 0},
		{"half.pt", whole[:len(whole)/2], 0},
		{"text.pt", []byte("this is no archive, though its name says so"), 0},
		{"sound.safetensors", tensors, 2},
		{"lying.safetensors", lying, 0},
		{"huge.safetensors", append(huge, tensors...), 0},
		{"short.safetensors", tensors[:5], 0},
		{"nojson.safetensors", append(binary.LittleEndian.AppendUint64(nil, 5), "{\"a\":"...), 0},
		{"empty.zip", nil, 0},
		{"weights.bin", tensors, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := forcedCuts(tt.name, bytes.NewReader(tt.data), int64(len(tt.data))); len(got) != tt.want {
				t.Errorf("cuts at %v", got)
			}
		})
	}
}

const (
	goldenGear   = "aba80fc0b33c9d4947c3228ae8604ff4fa633e593c5571471411d3974bfa68ea"
	goldenRandom = "86f30a197d14814a311158badd9730a9dca2ad9f47d7cb9db32d64c2c476f4d9"
	goldenZeros  = "484aa73093286ced1ad2580f797d676c5eefddf3ff5622f15b29a421d7617ade"
	goldenText   = "90f2a2cf87eb697c18705b552408f68060a809b05d1e26828c108e46c4a64ae8"
)

func BenchmarkGear(b *testing.B) {
	data := fill(make([]byte, 64<<20), 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			var g gear
			n := g.cut(rest)
			if n == 0 {
				n = len(rest)
			}
			rest = rest[n:]
		}
	}
}

func BenchmarkHash(b *testing.B) {
	data := fill(make([]byte, 1<<20), 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		hashOf(data)
	}
}

// BenchmarkChunk is what a large file costs one core: cut, hash each chunk, hash the whole, try to compress.
func BenchmarkChunk(b *testing.B) {
	data := fill(make([]byte, 64<<20), 1)
	b.SetBytes(int64(len(data)))
	var buf, zstd []byte
	for b.Loop() {
		c := newChunker(bytes.NewReader(data), nil)
		c.buf = buf
		whole := blake3.New()
		for {
			chunk, err := c.next()
			if err != nil {
				break
			}
			whole.Write(chunk)
			newFrame(chunk, hashOf(chunk), &zstd)
		}
		buf = c.buf
	}
}
