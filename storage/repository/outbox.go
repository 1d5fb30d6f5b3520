package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Names in an outbox, beside those of every spool:
//
//	storage.json               where it goes, and the project it comes from
//	pack/<64 hex>              complete packs that are not sent
//	kept/<64 hex>              packs that are sent and hold the newest tree of an experiment that goes on
//	ready/<n>-<experiment>     records of one flush, still without "before"; renamed here last
//	recipes/                   the lists of chunks of the project's large files, whose packs are sent and gone
//	head/<experiment>          where an experiment that goes on stands
//	sending                    the log object on its way, and of which ready files it is
//	seen                       packs that may be relied on, and until when
//	clock                      the highest time that was given to a Set
//	news                       its mtime is when a writer left something to send
//	wake                       its mtime is when somebody asked the uploader to go on
//	doubt                      packs that were found condemned or gone
//	lock                       locked by the uploader
//	status                     what the uploader says
//
// and beside those of every writer:
//
//	beat                       its heartbeat, as far as the writer knows it
//	alive                      its heartbeat was sent
//	over                       another writer has ended the experiment
//	resumed                    another writer goes on with the experiment, and decides how it ends
const (
	outboxName  = "storage.json"
	packsName   = "pack"
	keptName    = "kept"
	readyName   = "ready"
	recipesName = "recipes"
	headName    = "head"
	sendingName = "sending"
	seenName    = "seen"
	doubtName   = "doubt"
	statusName  = "status"
	clockName   = "clock"
	newsName    = "news"
	wakeName    = "wake"
	beatName    = "beat"
	aliveName   = "alive"
	overName    = "over"
	resumedName = "resumed"
)

// An outbox is a spool whose writers leave publishing to an uploader: they need the storage for nothing.
//
// It belongs to the URL of the storage, not to the id of a repository, which is not known before the storage was reached once.
type outbox struct {
	dir  string
	url  string
	now  func() time.Time
	mu   sync.Mutex // guards last
	last int64      // number of the last ready file

	recipes *Cache

	heads sync.Mutex // held while a file in head/ is read and replaced, which is small and local
}

// OpenOutbox opens the spool of a storage that may be out of reach, which the first writer makes. It is the folder <dir>/<hash of the URL>. What
// its writers return successfully from Begin, Commit and End is safe there, and visible when Upload has published it.
func OpenOutbox(store storage.Store, dir string) *Spool {
	sum := hashOf([]byte(store.URL()))
	id := hex.EncodeToString(sum[:shortHash])
	s := OpenSpool(newRepository(nearby{nowhere(store.URL()), filepath.Join(dir, id)}, config{ID: id}), dir)
	s.remote = newRepository(nearby{store, s.dir}, config{ID: id})
	s.outbox = &outbox{dir: s.dir, url: store.URL(), now: s.now, recipes: NewCache(filepath.Join(s.dir, recipesName), maxRecipes, nil)}
	return s
}

// An OutboxInfo says what an outbox is for.
type OutboxInfo struct {
	Dir     string `json:"-"`
	Storage string `json:"storage"` // the URL
	Root    string `json:"root"`    // of the project
}

// Outboxes lists the outboxes below a folder.
func Outboxes(dir string) ([]OutboxInfo, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", outboxName))
	if err != nil {
		return nil, err
	}
	var list []OutboxInfo
	for _, file := range files {
		if info, err := ReadOutbox(filepath.Dir(file)); err == nil {
			list = append(list, info)
		}
	}
	return list, nil
}

// ReadOutbox says what the outbox in a folder is for.
func ReadOutbox(dir string) (OutboxInfo, error) {
	info := OutboxInfo{Dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, outboxName))
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	return info, err
}

func (o *outbox) path(names ...string) string {
	return filepath.Join(append([]string{o.dir}, names...)...)
}

// make makes the folders, and says what they are for.
func (o *outbox) make(root string) error {
	if err := makeDir(o.dir); err != nil {
		return err
	}
	made := false
	for _, name := range []string{packsName, keptName, readyName, headName, writersName} {
		err := os.Mkdir(o.path(name), 0o700)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		made = made || err == nil
	}
	if _, err := os.Stat(o.path(outboxName)); err == nil {
		if made {
			err = syncPath(o.dir)
		}
		return err
	}
	text, err := json.Marshal(OutboxInfo{Storage: o.url, Root: root})
	if err != nil {
		return err
	}
	return replaceDurably(o.path(outboxName), append(text, '\n')) // and with it the folders
}

// put makes records and the packs they need durable and ready to be published. Their packs must be durable.
func (o *outbox) put(experiment replicate.ID, packs []builtPack, records []Record) error {
	_, object, err := encodeAll(records)
	if err != nil {
		return err
	}
	var moved []string
	for _, p := range packs {
		to := o.path(packsName, p.name.String())
		if err = os.Rename(p.path, to); err != nil {
			break
		}
		moved = append(moved, to)
	}
	if err == nil && len(packs) > 0 {
		err = syncPath(o.path(packsName))
	}
	if err == nil {
		err = o.putReady(experiment, object)
	}
	if err != nil {
		for _, path := range moved {
			os.Remove(path)
		}
	}
	return err
}

// putReady adds a ready file, durably, or not at all.
func (o *outbox) putReady(experiment replicate.ID, object []byte) error {
	f, name, err := o.newReady(experiment)
	if err != nil {
		return err
	}
	hidden := f.Name()
	_, err = f.Write(object)
	if err == nil {
		err = fdatasync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(hidden, name)
	}
	if err == nil {
		if err = syncPath(o.path(readyName)); err != nil {
			os.Remove(name)
		}
		o.tell()
	}
	if err != nil {
		os.Remove(hidden)
	}
	return err
}

// tell makes the uploader look now for what it would find a little later.
func (o *outbox) tell() {
	_ = os.WriteFile(o.path(newsName), nil, 0o600) // it looks in any case
}

// newReady opens a file that is to get a name in ready/, later ones of a process behind earlier ones.
func (o *outbox) newReady(experiment replicate.ID) (f *os.File, name string, err error) {
	o.mu.Lock()
	n := max(o.now().UnixNano(), o.last+1)
	o.last = n
	o.mu.Unlock()
	for ; ; n++ {
		base := fmt.Sprintf("%020d-%s", n, experiment)
		name = o.path(readyName, base)
		if _, err := os.Lstat(name); err == nil {
			continue
		}
		f, err = os.OpenFile(o.path(readyName, "."+base), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, os.ErrExist) {
			return f, name, err
		}
	}
}

// parseReadyName returns the experiment of a ready file.
func parseReadyName(name string) (replicate.ID, bool) {
	n, id, ok := strings.Cut(name, "-")
	if _, err := strconv.ParseUint(n, 10, 64); err != nil || !ok || len(n) != 20 {
		return "", false
	}
	experiment, err := replicate.ParseID(id)
	return experiment, err == nil
}

// ready lists the ready files in order, or those of one experiment.
func (o *outbox) ready(of replicate.ID) ([]string, error) {
	entries, err := os.ReadDir(o.path(readyName))
	if missingIsNil(err) != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if id, ok := parseReadyName(e.Name()); ok && (of == "" || of == id) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// encodeAll returns the log object of records and its key.
func encodeAll(records []Record) (key string, object []byte, err error) {
	lines := make([]Record, len(records))
	for i, r := range records {
		if lines[i], err = r.Encode(); err != nil {
			return "", nil, err
		}
	}
	key, object = encodeLog(lines)
	return key, object, nil
}

// undecided stands in a ready Set for the time that the uploader will give it.
var undecided = time.Unix(0, 0).UTC()

// doubtful returns the packs that the uploader found condemned or gone.
func (s *Spool) doubtful() map[replicate.Hash]bool {
	packs := map[replicate.Hash]bool{}
	if s.outbox == nil {
		return packs
	}
	text, err := os.ReadFile(s.outbox.path(doubtName))
	if err != nil {
		return packs
	}
	for line := range bytes.Lines(text) {
		if p, err := replicate.ParseHash(string(bytes.TrimSpace(line))); err == nil {
			packs[p] = true
		}
	}
	return packs
}

// publish makes records of an experiment visible, or ready to be. The packs are the spool's from here on, unless it fails.
func (s *Spool) publish(ctx context.Context, experiment replicate.ID, packs []builtPack, needs []replicate.Hash, records func(before time.Time) ([]Record, error)) error {
	if s.outbox == nil {
		return publish(ctx, s.repository, packs, needs, records)
	}
	list, err := records(time.Time{})
	if err != nil {
		return err
	}
	if err := s.outbox.put(experiment, packs, list); err != nil {
		return err
	}
	s.outbox.note(experiment, list)
	return nil
}
