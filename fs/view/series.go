package view

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/replicate/replicate/storage/repository"
)

// keptTables is how many spellings of one growing metrics.csv are kept for who still reads them: one for each number of columns
// it had.
const keptTables = 4

// A series is output.log or metrics.csv of an experiment that has not ended. It only grows: every state is a prefix of the
// next, and one of metrics ends at the end of a line.
type series struct {
	repo *repository.Repository
	dir  string
	text bool // output: bytes. Else points

	mu     sync.Mutex // held while the stream is followed: one goroutine reads, the others wait for what it finds
	src    sources    // as of the last update
	fed    bool       // there was one
	file   *os.File   // of the last writer: what is in it stays readable though its name may go
	offset int64      // how far the file was read
	count  int64      // position behind what was read of the last writer
	points int64      // how many there are, of all writers
	names  []string   // columns in order of appearance
	known  map[string]bool
	tables map[int]*spill // by number of columns; by 0 for text
}

// state returns how many columns the newest table has, 0 for text, and whether there is anything.
func (g *series) state() (width int, some bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.text {
		return 0, g.tables[0].Size() > 0
	}
	return len(g.names), g.points > 0
}

// update reads what came since the last time.
func (g *series) update(ctx context.Context, src sources) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	same := g.fed && g.src.writer == src.writer
	if same && g.file != nil {
		if err := g.readFile(); err != nil {
			return err
		}
		if src.live != "" || src.end() <= g.count {
			g.src = src
			return nil
		}
	}
	if same && g.file == nil && src.live == "" && src.end() == g.count {
		return nil
	}
	g.src, g.fed = src, false
	if err := g.reopen(ctx); err != nil {
		return err
	}
	g.fed = true
	return nil
}

// table returns the content with so many columns.
func (g *series) table(ctx context.Context, width int) (*spill, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.tables[width]; t != nil {
		return t, nil
	}
	if g.text || width > len(g.names) {
		return nil, ErrStale
	}
	t, err := g.make(ctx, width)
	if err != nil {
		return nil, err
	}
	if len(g.tables) == keptTables {
		for w := range g.tables { // any but the newest
			if w != len(g.names) {
				delete(g.tables, w)
				break
			}
		}
	}
	g.tables[width] = t
	return t, nil
}

// reopen starts from the beginning.
func (g *series) reopen(ctx context.Context) (err error) {
	g.file, g.offset, g.count, g.points = nil, 0, 0, 0
	g.names, g.known, g.tables = nil, make(map[string]bool), make(map[int]*spill)
	if g.src.live != "" {
		g.file, err = os.Open(g.src.live)
		if errors.Is(err, os.ErrNotExist) { // published and gone, just now: the rows will tell
			g.file, err = nil, nil
		}
		if err != nil {
			return err
		}
	}
	if g.file == nil {
		g.count = g.src.end()
	}
	if g.text {
		if g.tables[0], err = g.makeText(ctx); err != nil || g.file == nil {
			return err
		}
		return g.readFile()
	}
	err = points(ctx, g.repo, g.rows(), g.note)
	if err != nil || g.file == nil {
		return err
	}
	return g.readFile()
}

// note counts a point and its columns.
func (g *series) note(p repository.Point) {
	g.points++
	g.names = addColumns(g.names, g.known, p.Metrics)
}

// rows are what to read before the file: the last writer's only where there is none.
func (g *series) rows() []repository.StreamRow {
	if g.file == nil {
		return g.src.all()
	}
	return g.src.before
}

// readFile reads what the file has got since the last time, into every table.
func (g *series) readFile() error {
	info, err := g.file.Stat()
	if err != nil || info.Size() <= g.offset {
		return err
	}
	writers := make(map[int]*table)
	for width, t := range g.tables {
		writers[width] = &table{w: bufio.NewWriterSize(t, 64<<10)}
	}
	if g.text {
		n, err := io.Copy(writers[0].w, io.NewSectionReader(g.file, g.offset, info.Size()-g.offset))
		g.offset += n
		g.count = g.offset
		if err != nil {
			return err
		}
	} else {
		end, lines, err := livePoints(g.file, g.offset, info.Size(), func(p repository.Point) {
			g.note(p)
			for width, t := range writers {
				t.writePoint(p, g.names[:width])
			}
		})
		g.offset, g.count = end, g.count+lines
		if err != nil {
			return err
		}
	}
	for width, t := range g.tables {
		if err := writers[width].w.Flush(); err != nil {
			return err
		}
		t.mtime.Store(info.ModTime().UnixNano())
		t.publish()
	}
	return nil
}

// make makes the table of so many columns, as far as the stream was read.
func (g *series) make(ctx context.Context, width int) (*spill, error) {
	out := newSpill(g.dir)
	t := &table{w: bufio.NewWriterSize(out, 64<<10)}
	t.row(pointsHeader(g.names[:width])...)
	write := func(p repository.Point) { t.writePoint(p, g.names[:width]) }
	if err := points(ctx, g.repo, g.rows(), write); err != nil {
		return nil, err
	}
	if g.file != nil {
		if _, _, err := livePoints(g.file, 0, g.offset, write); err != nil {
			return nil, err
		}
	}
	if err := t.w.Flush(); err != nil {
		return nil, err
	}
	out.mtime.Store(g.mtime())
	out.publish()
	return out, nil
}

// makeText makes the text of the rows.
func (g *series) makeText(ctx context.Context) (*spill, error) {
	out := newSpill(g.dir)
	w := bufio.NewWriterSize(out, 64<<10)
	if err := g.repo.Stream(g.rows()).WriteTo(ctx, w); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	out.mtime.Store(g.mtime())
	out.publish()
	return out, nil
}

// mtime is when something was last added.
func (g *series) mtime() int64 {
	if g.file != nil {
		if info, err := g.file.Stat(); err == nil {
			return info.ModTime().UnixNano()
		}
	}
	var t int64
	for _, r := range g.src.all() {
		t = max(t, r.Before.UnixNano())
	}
	return t
}
