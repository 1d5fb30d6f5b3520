package replicate_test

import (
	"bufio"
	"bytes"
	"flag"
	"math"
	"math/big"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

var values = flag.Int("values", 20_000, "how many random values are compared with Python, each way")

// TestValuesAgreeWithPython compares the encoding with the one of testdata/values.py, each way.
func TestValuesAgreeWithPython(t *testing.T) {
	python := require.Program(t, "python3")
	t.Run("GoMakes", func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		var sent bytes.Buffer
		for range *values {
			sent.Write(someValue(r, 0).AppendJSON(nil))
			sent.WriteByte('\n')
		}
		answer := runPython(t, exec.Command(python, "testdata/values.py", "check"), sent.Bytes())
		if bytes.Equal(sent.Bytes(), answer) {
			return
		}
		got, want := strings.Split(string(answer), "\n"), strings.Split(sent.String(), "\n")
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("of %s Python made %s", want[i], got[min(i, len(got)-1)])
			}
		}
	})
	t.Run("PythonMakes", func(t *testing.T) {
		made := runPython(t, exec.Command(python, "testdata/values.py", "make", "7", strconv.Itoa(*values)), nil)
		scanner := bufio.NewScanner(bytes.NewReader(made))
		lines := 0
		for ; scanner.Scan(); lines++ {
			in, want, _ := strings.Cut(scanner.Text(), "\t")
			if v, err := replicate.ParseValue([]byte(in)); err != nil || string(v.AppendJSON(nil)) != want {
				t.Fatalf("of %s we made %s, %v; Python makes %s", in, v.AppendJSON(nil), err, want)
			}
		}
		if lines != *values {
			t.Fatalf("%d lines, %v", lines, scanner.Err())
		}
	})
}

func runPython(t *testing.T, cmd *exec.Cmd, stdin []byte) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	return out
}

// someValue makes values of every kind, floats of every exponent, ints of every size.
func someValue(r *rand.Rand, depth int) replicate.Value {
	switch n := r.IntN(10); {
	case n == 0:
		return []replicate.Value{{}, replicate.Bool(true), replicate.Bool(false)}[r.IntN(3)]
	case n == 1:
		i := new(big.Int).Lsh(big.NewInt(int64(r.Uint64())), uint(r.IntN(200)))
		return replicate.BigInt(i.Rsh(i, uint(r.IntN(260))))
	case n <= 4:
		return replicate.Float(math.Float64frombits(r.Uint64()))
	case n == 5:
		digits, _ := strconv.ParseFloat(strconv.FormatFloat(r.NormFloat64()*1000, 'f', r.IntN(6), 64), 64)
		return replicate.Float(digits)
	case n == 6:
		return replicate.Text(strings.Repeat(`\`, r.IntN(3)) + []string{"NaN", "Infinity", "-Infinity", "nan"}[r.IntN(4)])
	case n == 7 || depth > 3:
		return replicate.Text(someText(r))
	case n == 8:
		list := make([]replicate.Value, r.IntN(4))
		for i := range list {
			list[i] = someValue(r, depth+1)
		}
		return replicate.List(list)
	}
	var vs replicate.Values
	for range r.IntN(4) {
		vs = vs.Set(someText(r), someValue(r, depth+1))
	}
	return replicate.Map(vs)
}

// someText makes texts of code points of every length and class.
func someText(r *rand.Rand) string {
	text := make([]rune, r.IntN(6))
	for i := range text {
		text[i] = rune(r.Uint32() & 0x1fffff >> r.IntN(21) % 0x110000) // surrogates become U+FFFD
	}
	return string(text)
}
