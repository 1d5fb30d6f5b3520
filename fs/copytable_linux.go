package fs

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/replicate/replicate/fs/view"
)

// The table of copies is what the next server has to know of them, one line each, in the order in which it became true:
//
//	copy <number> <node of the file> <registration> <bytes>
//	closed <number>
//
// Only one server writes it at a time. It is of one connection, and of this boot: nothing of it is made durable.

// openCopyTable opens the table at path and reads it if the connection was used before, else begins a new one. A line that was not
// finished is of a copy that nobody heard of.
func openCopyTable(path string, again bool) (table *os.File, all []*copied, err error) {
	flags := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if !again {
		flags |= os.O_TRUNC
	}
	if table, err = os.OpenFile(path, flags, 0o600); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(table)
	if err == nil {
		data = data[:bytes.LastIndexByte(data, '\n')+1]
		all, err = parseCopies(data)
	}
	if err == nil {
		err = table.Truncate(int64(len(data)))
	}
	if err != nil {
		table.Close()
		return nil, nil, err
	}
	return table, all, nil
}

func parseCopies(data []byte) (all []*copied, err error) {
	for line := range bytes.Lines(data) {
		var n int
		var id uint64
		k := new(copied)
		if _, err := fmt.Sscanf(string(line), "copy %d %d %d %d\n", &n, &id, &k.backing, &k.size); err == nil && n == len(all)+1 {
			k.file = view.ID(id)
			all = append(all, k)
		} else if _, err := fmt.Sscanf(string(line), "closed %d\n", &n); err == nil && n > 0 && n <= len(all) {
			all[n-1].closed = true
		} else {
			return nil, fmt.Errorf("line %q is no line of a table of copies", line)
		}
	}
	return all, nil
}

func writeCopied(table *os.File, number int, k *copied) error {
	_, err := fmt.Fprintf(table, "copy %d %d %d %d\n", number, uint64(k.file), k.backing, k.size)
	return err
}

func writeClosed(table *os.File, number int) error {
	_, err := fmt.Fprintf(table, "closed %d\n", number)
	return err
}
