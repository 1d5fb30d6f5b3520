package replicate

import "strings"

// Nearest returns the candidate that name was probably meant to be, or "" if none is close: one that differs only in case, else the
// one with the fewest slips of the keyboard (a letter missing, added, wrong, or two exchanged), at most one for each three
// letters and at least one. Of equally near ones the first wins. It is the "did you mean" of every error.
func Nearest(name string, candidates []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		if strings.EqualFold(name, c) {
			return c
		}
		if d := distance(strings.ToLower(name), strings.ToLower(c), least); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// DidYouMean returns the hint for Nearest, or "" if nothing is near.
func DidYouMean(name string, candidates []string) string {
	if c := Nearest(name, candidates); c != "" {
		return `did you mean "` + c + `"?`
	}
	return ""
}

// distance counts the slips between a and b (optimal string alignment); limit stands for limit and more.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= 4*limit { // too different even if all are letters of four bytes
		return limit
	}
	s, t := []rune(a), []rune(b)
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			d := last[j-1]
			if s[i-1] != t[j-1] {
				d = 1 + min(d, last[j], row[j-1])
			}
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				d = min(d, before[j-2]+1)
			}
			row[j] = d
		}
		before, last, row = last, row, before
	}
	return min(last[len(t)], limit)
}

func abs(n int) int { return max(n, -n) }
