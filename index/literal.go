package index

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// literal is a value as it was written. What it means depends on what it is compared with.
type literal struct {
	text   string
	quoted bool
	offset int
}

func (l literal) String() string {
	if l.quoted {
		return "'" + strings.ReplaceAll(l.text, "'", "''") + "'"
	}
	return l.text
}

// isNull reports whether l is the word null.
func (l literal) isNull() bool { return !l.quoted && strings.EqualFold(l.text, "null") }

// meaning is everything a literal may mean to a stored value, worked out once.
type meaning struct {
	text     string
	quoted   bool
	null     bool
	scalar   replicate.Value // a number or a bool; null if it is neither
	compound replicate.Value // a list or a map; null if it is neither
}

func (l literal) meaning() meaning {
	m := meaning{text: replicate.Text(l.text).Text(), quoted: l.quoted, null: l.isNull()}
	if v, err := replicate.ParseValue([]byte(l.text)); err == nil && (v.Kind() == replicate.ListKind || v.Kind() == replicate.MapKind) {
		m.compound = v
	}
	if l.quoted {
		return m
	}
	if number, ok := parseNumber(l.text); ok {
		m.scalar = number
	} else if strings.EqualFold(l.text, "true") || strings.EqualFold(l.text, "false") {
		m.scalar = replicate.Bool(len(l.text) == len("true"))
	}
	return m
}

// equals reports whether a stored value, which is not null, is what m says.
func (m *meaning) equals(v replicate.Value) bool {
	switch v.Kind() {
	case replicate.TextKind:
		return v.Text() == m.text
	case replicate.ListKind, replicate.MapKind:
		return v.Equal(m.compound)
	}
	return !m.scalar.IsNull() && v.Equal(m.scalar)
}

// order compares a stored value with m: a negative number, 0 or a positive one; false where there is no order.
func (m *meaning) order(v replicate.Value) (int, bool) {
	with := m.scalar
	if m.quoted {
		with = replicate.Text(m.text)
	}
	if v.Kind() == replicate.BoolKind {
		return 0, false
	}
	if smaller, ok := v.Less(with); !ok {
		return 0, false
	} else if smaller {
		return -1, true
	}
	if v.Equal(with) {
		return 0, true
	}
	return 1, true
}

// parseNumber reads an int of any size or a float, also inf and nan.
func parseNumber(text string) (replicate.Value, bool) {
	digits := strings.TrimLeft(text, "+-")
	if digits == "" || len(text)-len(digits) > 1 {
		return replicate.Value{}, false
	}
	if strings.Trim(digits, "0123456789") == "" {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return replicate.Int(i), true
		}
		if i, ok := new(big.Int).SetString(text, 10); ok && len(digits) <= replicate.MaxDigits {
			return replicate.BigInt(i), true
		}
		return replicate.Value{}, false
	}
	if strings.ContainsAny(digits, "_xXpP") { // Go's own spellings
		return replicate.Value{}, false
	}
	f, err := strconv.ParseFloat(text, 64)
	return replicate.Float(f), err == nil || errors.Is(err, strconv.ErrRange)
}

// period is a stretch of time [from, to): a date is a whole day. An instant has to = from.
type period struct{ from, to int64 } // nanoseconds since 1970

// parseTime reads a time as people write it, in the zone of now.
func parseTime(text string, now time.Time) (period, bool) {
	instant := func(t time.Time) (period, bool) { return period{t.UnixNano(), t.UnixNano()}, true }
	days := func(t time.Time) (period, bool) {
		return period{t.UnixNano(), t.AddDate(0, 0, 1).UnixNano()}, true
	}
	year, month, day := now.Date()
	switch strings.ToLower(text) {
	case "now":
		return instant(now)
	case "today":
		return days(time.Date(year, month, day, 0, 0, 0, 0, now.Location()))
	case "yesterday":
		return days(time.Date(year, month, day-1, 0, 0, 0, 0, now.Location()))
	}
	if ago, ok := strings.CutSuffix(strings.ToLower(text), " ago"); ok {
		d, ok := parseDuration(ago)
		if !ok || d != d || d < 0 || d > maxAgo.Seconds() {
			return period{}, false
		}
		return instant(now.Add(-time.Duration(d * float64(time.Second))))
	}
	if t, err := time.Parse(time.RFC3339, strings.ToUpper(text)); err == nil {
		return inRange(t, instant)
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l.layout, strings.ToUpper(text), now.Location()); err == nil {
			if l.width == 0 {
				return inRange(t, days)
			}
			return inRange(t, func(t time.Time) (period, bool) {
				return period{t.UnixNano(), t.Add(l.width).UnixNano()}, true
			})
		}
	}
	return period{}, false
}

// maxAgo keeps what is subtracted from now within the 292 years that a time.Duration holds.
const maxAgo = 200 * 365 * 24 * time.Hour

// inRange refuses the years that nanoseconds since 1970 cannot hold.
func inRange(t time.Time, f func(time.Time) (period, bool)) (period, bool) {
	if t.Year() < 1700 || t.Year() > 2250 {
		return period{}, false
	}
	return f(t)
}

// layouts are the times that name their zone by being local. A time means the whole of its last unit; 0 is a day, which has 23
// to 25 hours.
var layouts = []struct {
	layout string
	width  time.Duration
}{
	{"2006-01-02", 0},
	{"2006-01-02 15:04", time.Minute}, {"2006-01-02T15:04", time.Minute},
	{"2006-01-02 15:04:05", time.Second}, {"2006-01-02T15:04:05", time.Second},
}

// durations are the units of durations in seconds, sizes those of sizes in bytes.
var (
	durations = map[string]float64{
		"": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60,
		"h": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800, "weeks": 604800,
	}
	sizes = map[string]float64{
		"": 1, "b": 1, "byte": 1, "bytes": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
)

// parseDuration reads 90s, 5m, 2 days, 1h30m as seconds.
func parseDuration(text string) (float64, bool) { return parseUnits(text, durations) }

// ParseSize reads 500kB, 1.5GB, 2 GiB as bytes.
func ParseSize(text string) (float64, bool) { return parseUnits(text, sizes) }

// parseUnits adds up numbers with units. Only a number that stands alone may have none.
func parseUnits(text string, units map[string]float64) (float64, bool) {
	sum, parts := 0.0, 0
	for rest := strings.TrimSpace(text); rest != "" || parts == 0; parts++ {
		unitAt := len(rest) - len(strings.TrimLeft(rest, "0123456789.+-"))
		behind := strings.TrimLeft(rest[unitAt:], " ")
		end := strings.IndexFunc(behind, func(r rune) bool { return r == ' ' || r >= '0' && r <= '9' })
		if end < 0 {
			end = len(behind)
		}
		number, err := strconv.ParseFloat(rest[:unitAt], 64)
		unit, ok := units[strings.ToLower(behind[:end])]
		if err != nil || !ok || end == 0 && (parts > 0 || behind != "") {
			return 0, false
		}
		sum += number * unit
		rest = strings.TrimLeft(behind[end:], " ")
	}
	return sum, true
}
