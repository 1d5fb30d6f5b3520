package view

import (
	"context"
	"sync"
	"time"

	"github.com/replicate/replicate/storage"
)

// sizeAge is how long a size is good enough: it is for df, and takes a listing.
const sizeAge = time.Minute

// A sizer knows how many bytes a storage holds.
type sizer struct {
	mu    sync.Mutex // held while it is counted: the others wait for the same number
	at    time.Time
	bytes int64
}

// Size is how many bytes the repository holds, as of a minute ago at most. It is 0 where counting would ask the network.
func (v *View) Size() int64 {
	local, ok := v.repo.Store().(storage.Local)
	if !ok {
		return 0
	}
	v.size.mu.Lock()
	defer v.size.mu.Unlock()
	if now := time.Now(); now.Sub(v.size.at) > sizeAge {
		var sum int64
		for o, err := range local.List(context.Background(), "", "") {
			if err != nil {
				break
			}
			sum += o.Size
		}
		v.size.at, v.size.bytes = now, sum
	}
	return v.size.bytes
}
