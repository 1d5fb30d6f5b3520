package repository

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A takenObject is an object of records as a merge takes it.
type takenObject struct {
	records []Record
	late    map[replicate.Hash]bool // those that were believed though they landed late
	left    bool                    // the object stays where it is
}

// take reads objects, C2 and C3. One that vanished was merged by somebody else. One that is damaged, or holds a record that can be believed or
// not only later, is left, with all that it holds.
func (m *merger) take(ctx context.Context, objects []storage.Object) error {
	doomed := sync.OnceValues(func() (map[replicate.Hash]bool, error) { // asked after all of objects had landed
		return m.repository.readDoomed(ctx)
	})
	taken := make([]takenObject, len(objects))
	atOnce := segmentsAtOnce
	if m.generation == 0 {
		atOnce = getsAtOnce
	}
	err := parallel(ctx, m.repository.atOnce(atOnce), len(objects), func(ctx context.Context, i int) (err error) {
		taken[i], err = m.takeOne(ctx, objects[i], doomed)
		if errors.Is(err, fs.ErrNotExist) || replicate.KindOf(err) == replicate.Corrupt {
			taken[i].left, err = true, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	m.late = map[replicate.Hash]bool{}
	for i, t := range taken {
		if t.left {
			continue
		}
		m.taken = append(m.taken, objects[i].Key)
		m.records = append(m.records, t.records...)
		for hash := range t.late {
			m.late[hash] = true
		}
	}
	return nil
}

func (m *merger) takeOne(ctx context.Context, o storage.Object, doomed doomedPacks) (takenObject, error) {
	if m.generation == 0 {
		return m.takeLog(ctx, o, doomed)
	}
	s, err := m.repository.openSegment(ctx, o)
	if err == nil {
		err = s.fetch(ctx, m.repository)
	}
	if err != nil {
		return takenObject{}, err
	}
	records, damage := s.directory.records(s.object)
	if len(damage) > 0 {
		return takenObject{}, s.damaged(errors.Join(damage...))
	}
	return takenObject{records: records}, nil
}

func (m *merger) takeLog(ctx context.Context, o storage.Object, doomed doomedPacks) (t takenObject, err error) {
	data, err := m.repository.readWhole(ctx, o)
	if err != nil {
		return t, err
	}
	records, err := parseLog(o.Key, data)
	if err != nil {
		return t, err
	}
	t.late = map[replicate.Hash]bool{}
	for _, record := range records {
		verdict := sound
		if record.isLate(o) {
			if verdict, err = m.repository.judge(ctx, doomed, record.row().Packs); err != nil {
				return t, err
			}
			t.late[record.Hash] = true
		}
		switch verdict {
		case doubtful:
			t.left = true
			return t, nil
		case sound:
			t.records = append(t.records, record)
		}
	}
	return t, nil
}
