package index

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/replicate/replicate"
)

// fileVersion is the version of the tables and blobs. It is part of the file's name, so that programs of different versions do not
// rebuild each other's index in turn.
const fileVersion = 7

const schema = `
CREATE TABLE meta (
	instance INTEGER, -- random: tells one set of ordinals from another
	version INTEGER   -- grows with every change
);
-- Names of objects that were read, 16 bytes each, appended sync by sync.
CREATE TABLE seen (id INTEGER PRIMARY KEY, keys BLOB);
-- Numbers of parameters and metrics in scan blobs.
CREATE TABLE name (number INTEGER PRIMARY KEY, kind INTEGER, name TEXT, UNIQUE (kind, name));
CREATE TABLE experiment (
	ord INTEGER PRIMARY KEY,
	id BLOB UNIQUE,
	stands INTEGER, -- standing
	open INTEGER,   -- has no end: its heartbeat matters
	version INTEGER,
	parts INTEGER,  -- segments that have rows of it which are not here
	created INTEGER,
	changed INTEGER, -- when anything of it last changed
	name TEXT
);
CREATE INDEX experiment_created ON experiment (created) WHERE stands IN (1, 2);
CREATE INDEX experiment_name ON experiment (name) WHERE name != '';
CREATE INDEX experiment_open ON experiment (open) WHERE open = 1;
CREATE INDEX experiment_parts ON experiment (id) WHERE parts > 0;
CREATE INDEX experiment_version ON experiment (version) WHERE version > 1;
-- What queries look at: many experiments in each row.
CREATE TABLE scans (number INTEGER PRIMARY KEY, scans BLOB);
-- The fold of an experiment, and what it is folded from beside commits and streams: its record, and the winners among its Sets.
CREATE TABLE doc (ord INTEGER PRIMARY KEY, doc BLOB, line BLOB, facts BLOB);
-- The newest row of every commit. (at, hash) is its version.
CREATE TABLE commits (
	ord INTEGER PRIMARY KEY,
	experiment INTEGER,
	id BLOB,
	dead INTEGER,
	version INTEGER,
	at INTEGER,
	hash INTEGER,
	line BLOB
);
CREATE INDEX commits_id ON commits (id);
CREATE INDEX commits_experiment ON commits (experiment);
CREATE INDEX commits_version ON commits (version) WHERE version > 1;
CREATE TABLE stream (
	experiment INTEGER, kind TEXT, hash INTEGER, at INTEGER, line BLOB,
	PRIMARY KEY (experiment, kind, at, hash)
) WITHOUT ROWID;
-- Large files, by what makes two of them the same; commit_ord and place say where one is.
CREATE TABLE file (number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE, commit_ord INTEGER, place INTEGER);
-- experiment is that of a commit, as far as it is known.
CREATE TABLE deletion (id BLOB PRIMARY KEY, at INTEGER, experiment INTEGER) WITHOUT ROWID;
CREATE INDEX deletion_experiment ON deletion (experiment) WHERE experiment IS NOT NULL;
-- Segments whose heads alone were read: where their rows are, and how many experiments have some there that are not here.
CREATE TABLE segment (number INTEGER PRIMARY KEY, key TEXT UNIQUE, body BLOB, parts INTEGER);
`

// settings of every connection. The file is a cache: a power cut may cost the last sync, as the next one makes it again. A process
// waits for another one's sync rather than answer from what was before it.
var settings = []string{
	"busy_timeout(30000)", "journal_mode(WAL)", "synchronous(NORMAL)",
	"mmap_size(8589934592)", // a scan reads everything: no copies
	"cache_size(-65536)",    // 64 MB: an import touches pages at random
	"temp_store(MEMORY)",
}

// openFile opens or makes the database at path, "" for one in memory.
func openFile(ctx context.Context, path string) (*sql.DB, error) {
	return openWith(ctx, path, settings)
}

func openWith(ctx context.Context, path string, settings []string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Opaque: ":memory:"}
	if path != "" {
		if err := makePrivate(path); err != nil {
			return nil, &noFile{err}
		}
		dsn = url.URL{Scheme: "file", Path: path}
	}
	dsn.RawQuery = url.Values{"_pragma": settings}.Encode()
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	if path == "" || slices.Contains(settings, buildAlone) {
		db.SetMaxOpenConns(1) // each connection would have a database, or a journal, of its own
	}
	if err := prepare(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// makePrivate makes the file and its folder for this user alone.
func makePrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// prepare makes the tables of an empty database.
func prepare(ctx context.Context, db *sql.DB) error {
	return transaction(ctx, db, "BEGIN IMMEDIATE", func(c *sql.Conn) error {
		var version int
		if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil || version == fileVersion {
			return err
		}
		if version != 0 {
			return errBlob
		}
		var random [8]byte
		if _, err := rand.Read(random[:]); err != nil {
			return err
		}
		instance := int64(binary.BigEndian.Uint64(random[:]) >> 1)
		for _, statement := range []string{schema, fmt.Sprintf("INSERT INTO meta VALUES (%d, 0)", instance),
			fmt.Sprintf("PRAGMA user_version = %d", fileVersion)} {
			if _, err := c.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// transaction runs f on one connection between begin and COMMIT, or ROLLBACK after an error. Everything f reads is of one moment.
func transaction(ctx context.Context, db *sql.DB, begin string, f func(c *sql.Conn) error) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, begin); err != nil {
		return err
	}
	ended := context.WithoutCancel(ctx) // a transaction is never left open
	if err := f(c); err != nil {
		c.ExecContext(ended, "ROLLBACK") // a failed one may be over already
		return err
	}
	_, err = c.ExecContext(ended, "COMMIT")
	return err
}

// isDamaged reports whether err says that the file is no index.
func isDamaged(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB ||
			code == sqlite3.SQLITE_ERROR && strings.Contains(err.Error(), " no ") // a table or column of another program
	}
	return errors.Is(err, errBlob)
}

// noFile is the error of a file that cannot be made.
type noFile struct{ error }

// isUnwritable reports whether SQLite says that no file can be kept there.
func isUnwritable(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM:
			return true
		}
	}
	var none *noFile
	return errors.As(err, &none)
}

// removeFile removes a database with what SQLite keeps beside it. "" is none.
func removeFile(path string) error {
	if path == "" {
		return nil
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// wrap makes an error of this package out of one of SQLite.
func wrap(op string, err error) error {
	var known *replicate.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &replicate.Error{Op: op, Kind: replicate.Unavailable, Err: err}
	var s *sqlite.Error
	switch {
	case isDamaged(err):
		e.Kind = replicate.Corrupt
	case errors.As(err, &s) && s.Code()&0xff == sqlite3.SQLITE_BUSY:
		e.Err, e.Hint = errors.New("another process has been writing it for 30 s"), "try again"
	}
	return e
}

// fileName is the name of the index of a repository.
func fileName(repositoryID string) string {
	return fmt.Sprintf("%s-%d.sqlite", repositoryID, fileVersion)
}
