package view

import (
	"bufio"
	"context"
	"fmt"
	"html"
	"math"
	"strconv"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// The drawing: small multiples in columns, in pixels.
const (
	plotWidth, plotHeight = 320, 200
	plotColumns           = 3
	marginLeft            = 56
	marginRight           = 12
	marginTop             = 26
	marginBottom          = 26

	// maxPoints is how many points a curve is drawn with at most: more than there are pixels show nothing more.
	maxPoints = 500

	// logSpan is the ratio of the largest to the smallest value from which on the axis is logarithmic.
	logSpan = 100
)

// A curve is one metric by step, as far as it is finite.
type curve struct {
	name    string
	x, y    []float64
	commits []bool // the point was made by a commit
}

// renderCurves writes metrics.svg.
func (v *View) renderCurves(ctx context.Context, e *index.Experiment, w *bufio.Writer) error {
	rows, err := v.index.Streams(ctx, e.ID, repository.MetricsStream)
	if err != nil {
		return err
	}
	byName := make(map[string]*curve)
	var curves []*curve
	commits, err := v.index.CommitsOf(ctx, e.ID)
	if err != nil {
		return err
	}
	drawn := make(map[replicate.ID]bool)
	add := func(p repository.Point) {
		drawn[p.Commit] = true
		for _, m := range p.Metrics {
			y := m.Value.Float()
			if !m.Value.IsNumber() || math.IsNaN(y) || math.IsInf(y, 0) {
				continue
			}
			c := byName[m.Name]
			if c == nil {
				c = &curve{name: m.Name}
				byName[m.Name] = c
				curves = append(curves, c)
			}
			c.add(p, y)
		}
	}
	if err := points(ctx, v.repo, rows, add); err != nil {
		return err
	}
	for _, c := range commits { // those of a running experiment may be published before the points
		if !drawn[c.ID] {
			add(repository.Point{Step: c.Step, Metrics: c.Metrics, Commit: c.ID})
		}
	}
	draw(w, curves)
	return nil
}

func (c *curve) add(p repository.Point, y float64) {
	x := float64(p.Step)
	if p.Step == replicate.NoStep {
		x = float64(len(c.x))
	}
	c.x, c.y, c.commits = append(c.x, x), append(c.y, y), append(c.commits, p.Commit != "")
}

func draw(w *bufio.Writer, curves []*curve) {
	columns := max(1, min(plotColumns, len(curves)))
	rows := (len(curves) + columns - 1) / columns
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="10">`+"\n",
		columns*plotWidth, max(1, rows)*plotHeight)
	fmt.Fprintln(w, `<rect width="100%" height="100%" fill="white"/>`)
	for i, c := range curves {
		fmt.Fprintf(w, `<g transform="translate(%d,%d)">`+"\n", i%columns*plotWidth, i/columns*plotHeight)
		c.draw(w)
		fmt.Fprintln(w, `</g>`)
	}
	fmt.Fprintln(w, `</svg>`)
}

// draw draws one plot: frame, title, the ends of both axes, the curve, a dot for each commit.
func (c *curve) draw(w *bufio.Writer) {
	across := newAxis(c.x, marginLeft, plotWidth-marginRight, false)
	up := newAxis(c.y, plotHeight-marginBottom, marginTop, true)
	fmt.Fprintf(w, `<text x="%d" y="16" font-size="12">%s</text>`+"\n", marginLeft, html.EscapeString(c.name+up.note()))
	fmt.Fprintf(w, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#ccc"/>`+"\n",
		marginLeft, marginTop, plotWidth-marginLeft-marginRight, plotHeight-marginTop-marginBottom)
	for _, value := range []float64{up.low, up.high} {
		fmt.Fprintf(w, `<text x="%d" y="%s" text-anchor="end" fill="#666">%s</text>`+"\n", marginLeft-4, pixel(up.at(value)+3), short(value))
	}
	fmt.Fprintf(w, `<text x="%d" y="%d" fill="#666">step %s</text>`+"\n", marginLeft, plotHeight-10, short(across.low))
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end" fill="#666">%s</text>`+"\n", plotWidth-marginRight, plotHeight-10, short(across.high))

	every := (len(c.x) + maxPoints - 1) / maxPoints
	w.WriteString(`<polyline fill="none" stroke="#1f77b4" stroke-width="1.2" points="`)
	for i := range c.x {
		if i%every == 0 || i == len(c.x)-1 {
			fmt.Fprintf(w, "%s,%s ", pixel(across.at(c.x[i])), pixel(up.at(c.y[i])))
		}
	}
	w.WriteString("\"/>\n")
	commits := 0
	for _, is := range c.commits {
		if is {
			commits++
		}
	}
	every, seen := (commits+maxPoints-1)/maxPoints, 0
	for i, is := range c.commits {
		if !is {
			continue
		}
		if seen++; seen%every == 0 {
			fmt.Fprintf(w, `<circle cx="%s" cy="%s" r="1.8" fill="#1f77b4"/>`+"\n", pixel(across.at(c.x[i])), pixel(up.at(c.y[i])))
		}
	}
}

// An axis maps values to pixels.
type axis struct {
	low, high float64
	from, to  float64 // pixels
	log       bool
}

func newAxis(values []float64, from, to float64, mayBeLog bool) axis {
	a := axis{low: values[0], high: values[0], from: from, to: to}
	for _, v := range values {
		a.low, a.high = min(a.low, v), max(a.high, v)
	}
	a.log = mayBeLog && a.low > 0 && a.high/a.low >= logSpan
	return a
}

func (a axis) note() string {
	if a.log {
		return " (log)"
	}
	return ""
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		low, high, v = math.Log(low), math.Log(high), math.Log(v)
	}
	if high == low {
		return (a.from + a.to) / 2
	}
	return a.from + (a.to-a.from)*(v/2-low/2)/(high/2-low/2) // halves: the span of two floats may overflow
}

func pixel(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

func short(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }
