package index

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"

	"github.com/replicate/replicate"
)

// A File is a file as commits hold it: content, mode and time. One that many commits share has one number, so that a file system
// can show it as one node. Commit and Place say where one of them has it: the commit's ordinal, and a place that the caller counts.
type File struct {
	Hash   replicate.Hash
	Size   int64
	Mode   uint32
	Mtime  int64 // nanoseconds since 1970
	Commit int64
	Place  int64
}

// key is what makes two files the same.
func (f *File) key() []byte {
	key := append([]byte(nil), f.Hash[:]...)
	key = binary.BigEndian.AppendUint64(key, uint64(f.Size))
	key = binary.BigEndian.AppendUint64(key, uint64(f.Mtime))
	return binary.BigEndian.AppendUint16(key, uint16(f.Mode))
}

// FileNumbers returns the number of each file, from 1. One that is seen for the first time gets one, with its commit and place.
func (x *Index) FileNumbers(ctx context.Context, files []File) (numbers []int64, err error) {
	err = x.use(ctx, func(db *sql.DB) error {
		numbers, err = findFiles(ctx, db, files)
		if err != nil || len(numbers) == len(files) {
			return err
		}
		return transaction(ctx, db, "BEGIN IMMEDIATE", func(c *sql.Conn) error {
			for i := range files {
				f := &files[i]
				_, err := c.ExecContext(ctx, "INSERT INTO file (key, commit_ord, place) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", f.key(), f.Commit, f.Place)
				if err != nil {
					return err
				}
			}
			numbers, err = findFiles(ctx, c, files)
			return err
		})
	})
	return numbers, wrap("number files", err)
}

// preparer is a database or a connection.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// findFiles returns the numbers of files, up to the first that has none.
func findFiles(ctx context.Context, p preparer, files []File) ([]int64, error) {
	find, err := p.PrepareContext(ctx, "SELECT number FROM file WHERE key = ?")
	if err != nil {
		return nil, err
	}
	defer find.Close()
	numbers := make([]int64, 0, len(files))
	for i := range files {
		var n int64
		err := find.QueryRowContext(ctx, files[i].key()).Scan(&n)
		if errors.Is(err, sql.ErrNoRows) {
			return numbers, nil
		}
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// FileByNumber returns a file, or NotFound.
func (x *Index) FileByNumber(ctx context.Context, number int64) (f File, err error) {
	err = x.use(ctx, func(db *sql.DB) error {
		var key []byte
		err := db.QueryRowContext(ctx, "SELECT key, commit_ord, place FROM file WHERE number = ?", number).Scan(&key, &f.Commit, &f.Place)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return notFound("no file number %d", number)
		case err != nil:
			return err
		case len(key) != len(f.Hash)+18:
			return errBlob
		}
		rest := key[copy(f.Hash[:], key):]
		f.Size, f.Mtime = int64(binary.BigEndian.Uint64(rest)), int64(binary.BigEndian.Uint64(rest[8:]))
		f.Mode = uint32(binary.BigEndian.Uint16(rest[16:]))
		return nil
	})
	return f, wrap("read file", err)
}
