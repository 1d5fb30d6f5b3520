package main

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/replicate/replicate"
)

// ago returns how long t is before now, in the words of tables: "40 seconds ago" up to 30 days, then the date.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return ""
	case d < 0 && d > -time.Minute:
		d = 0 // clocks of two machines
	case d < 0 || d >= 30*24*time.Hour:
		return t.Local().Format("2006-01-02")
	}
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return plural(int64(d/time.Second), "second") + " ago"
	case d < time.Hour:
		return plural(int64(d/time.Minute), "minute") + " ago"
	case d < 24*time.Hour:
		return plural(int64(d/time.Hour), "hour") + " ago"
	}
	return plural(int64(d/(24*time.Hour)), "day") + " ago"
}

// lasted returns a duration in its two largest units: "41 s", "3 min 20 s", "2 h 5 min", "4 d 1 h".
func lasted(d time.Duration) string {
	s := int64(max(d, 0).Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d d %d h", s/(24*3600), s/3600%24)
}

// size returns bytes with three digits at most: "912 B", "2.1 kB", "46 MB".
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB", "PB"} {
		f /= 1000
		switch {
		case f < 9.95:
			return fmt.Sprintf("%.1f %s", f, unit)
		case f < 999.5:
			return fmt.Sprintf("%.0f %s", f, unit)
		}
	}
	return fmt.Sprintf("%.0f EB", f/1000)
}

// metric returns a value with 5 significant digits: 1.2346e-06, 0.33333, 123456. Ints and texts are exact.
func metric(v replicate.Value) string {
	f := v.Float()
	if v.Kind() != replicate.FloatKind || math.IsNaN(f) || math.IsInf(f, 0) {
		return v.String()
	}
	if a := math.Abs(f); a >= 1e5 && a < 1e15 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 5, 64)
}

func metricOf(metrics replicate.Values, name string) string {
	if v, ok := metrics.Get(name); ok {
		return metric(v)
	}
	return ""
}

func step(s replicate.Step) string {
	if s == replicate.NoStep {
		return ""
	}
	return strconv.FormatInt(int64(s), 10)
}
