package main

import (
	"context"
	"sync"

	"github.com/replicate/replicate/storage/repository"
)

// guesses read what a command will probably ask for, while the storage says what is new: what a reference stands for is mostly known
// before, and commits never change.
type guesses struct {
	stop    context.CancelFunc // nil: there are none
	running sync.WaitGroup
}

// guess begins to read the lists of files that refs stood for in a repository when it was last asked. What goes wrong is met again.
func (s *session) guess(before *repository.Repository, refs []string) {
	if s.use(before) != nil {
		return
	}
	var ctx context.Context
	ctx, s.guesses.stop = context.WithCancel(s.ctx)
	for _, ref := range refs {
		s.guesses.running.Go(func() {
			t, err := s.index.Resolve(ctx, ref)
			if err != nil {
				return
			}
			commit, _ := stoodFor(t)
			if row, err := s.rowFor(ctx, t, commit); err == nil {
				_, _ = s.repo.TreeNear(ctx, row)
			}
		})
	}
}

func (s *session) stopGuessing() {
	if s.guesses.stop != nil {
		s.guesses.stop()
		s.guesses.running.Wait()
		s.guesses.stop = nil
	}
}
