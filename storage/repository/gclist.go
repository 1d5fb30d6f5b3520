package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// The suffixes of lists in gc/.
	condemnedSuffix = ".condemned"
	sentenceSuffix  = ".sentence"
	// maxGCList bounds a list: a million packs and more.
	maxGCList = 128 << 20
	// packsInList is how many packs a collector puts into one list.
	packsInList = 1 << 20
)

// A gcList is an object in gc/: a JSON line, then one pack name a line, compressed.
type gcList struct {
	Condemned time.Time        `json:"condemned,omitzero"` // in a sentence: when its packs were condemned; else the time of the object says that
	packs     []replicate.Hash // in no order

	object   storage.Object
	sentence bool
}

// readGCList reads a list, nil if the object is none.
func (r *Repository) readGCList(ctx context.Context, o storage.Object) (*gcList, error) {
	sentence := strings.HasSuffix(o.Key, sentenceSuffix)
	if !sentence && !strings.HasSuffix(o.Key, condemnedSuffix) {
		return nil, nil
	}
	data, err := readObject(ctx, r.store, o.Key, 0, -1)
	if err != nil {
		return nil, err
	}
	list, err := parseGCList(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Key, err)
	}
	list.object, list.sentence = o, sentence
	if !sentence {
		list.Condemned = o.Time
	}
	return &list, nil
}

func parseGCList(data []byte) (gcList, error) {
	z, err := Decompress(bytes.NewReader(data))
	if err != nil {
		return gcList{}, err
	}
	text, err := io.ReadAll(io.LimitReader(z, maxGCList+1))
	if err == nil && len(text) > maxGCList {
		err = fmt.Errorf("larger than %d bytes", maxGCList)
	}
	if err != nil {
		return gcList{}, replicate.Errorf(replicate.Corrupt, "%w", err)
	}
	head, names, _ := bytes.Cut(text, []byte("\n"))
	var list gcList
	if err := json.Unmarshal(head, &list); err != nil {
		return gcList{}, replicate.Errorf(replicate.Corrupt, "%w", err)
	}
	for name := range bytes.Lines(names) {
		p, err := replicate.ParseHash(string(bytes.TrimSuffix(name, []byte("\n"))))
		if err != nil {
			return gcList{}, err
		}
		list.packs = append(list.packs, p)
	}
	return list, nil
}

// encode returns the bytes of a list.
func (l *gcList) encode() ([]byte, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	for _, p := range l.packs {
		text = append(appendHex(text, p[:]), '\n')
	}
	return encoder1().EncodeAll(text, nil), nil
}

// gcKey names a new list. The names of sentences are behind those of condemned lists, so that a listing that finds a condemned list gone was made after
// it was, and meets the sentences that were passed on it.
func gcKey(random io.Reader, suffix string) (string, error) {
	var name [shortHash]byte
	if _, err := io.ReadFull(random, name[:]); err != nil {
		return "", err
	}
	name[0] &= 0x7f
	if suffix == sentenceSuffix {
		name[0] |= 0x80
	}
	return gcPrefix + hex.EncodeToString(name[:]) + suffix, nil
}
