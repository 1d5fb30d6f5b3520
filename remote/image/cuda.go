package image

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// minimumDriver returns the oldest driver that runs a version of CUDA, "" if none is known. From CUDA 11 on it is one for a whole major version.
func minimumDriver(cuda string) string {
	v := numbers(cuda)
	for _, m := range []struct {
		major, minor int // minor -1: all
		driver       string
	}{
		{13, -1, "580.65"}, {12, -1, "525.60"}, {11, -1, "450.80"},
		{10, 2, "440.33"}, {10, 1, "418.39"}, {10, 0, "410.48"}, {9, 2, "396.26"},
	} {
		if v[0] == m.major && (m.minor == -1 || len(v) > 1 && v[1] == m.minor) {
			return m.driver
		}
	}
	return ""
}

// CheckDriver compares the driver of a host with the CUDA that is asked for. A host of which no driver is known is not judged. The error, of kind Usage,
// has both numbers.
func (p *Plan) CheckDriver(driver string) error {
	least := minimumDriver(p.cuda)
	if p.cuda == "" || driver == "" || least == "" || !older(driver, least) {
		return nil
	}
	return replicate.Errorf(replicate.Usage, "CUDA %s needs the driver %s or newer, and the host has %s", p.cuda, least, driver).
		WithHint("update the host's driver, or set an older cuda in replicate.yaml")
}

// numbers reads a version as numbers; what is no number is 0.
func numbers(version string) []int {
	var list []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		list = append(list, n)
	}
	return list
}

// older reports whether version a is below b.
func older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	for i := range y {
		if i >= len(x) {
			return true
		}
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return false
}

// wheelCUDA finds the CUDA a wheel of torch is built for: +cu121 in its version, /cu121 in the URL of its index.
var wheelCUDA = regexp.MustCompile(`[+/]cu([0-9]{2,3})\b`)

// mixedCUDA warns of wheels that bring another CUDA than the image.
func mixedCUDA(cuda string, lines []string) string {
	if cuda == "" {
		return ""
	}
	want := numbers(cuda)[0]
	for _, line := range lines {
		found := wheelCUDA.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		if digits := found[1]; digits[:len(digits)-1] != strconv.Itoa(want) {
			return fmt.Sprintf("%q brings CUDA %s.%s, and cuda is %s", line, digits[:len(digits)-1], digits[len(digits)-1:], cuda)
		}
	}
	return ""
}
