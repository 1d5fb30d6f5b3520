package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/storage/project"
)

// A Found is a run that has its container on a host, whoever started it.
type Found struct {
	ID      replicate.ID
	Ours    bool // its experiment is to be in the storage that was asked for
	Running bool
	User    string // who started it
	Client  string // the machine that did
	Created time.Time
}

// Runs lists the runs of a host, in one call.
func (h *Host) Runs(ctx context.Context, p *project.Project) ([]Found, error) {
	list, err := h.engine.List(ctx, map[string]string{docker.LabelKind: docker.KindRun})
	var found []Found
	for _, c := range list {
		id, err := replicate.ParseID(c.Labels[docker.LabelExperiment])
		if err != nil {
			continue // somebody else made it
		}
		found = append(found, Found{
			ID: id, Ours: c.Labels[docker.LabelStorage] == h.client.storageLabel(p.StorageURL), Running: !hasStopped(c),
			User: c.Labels[docker.LabelUser], Client: c.Labels[docker.LabelClient], Created: c.Created,
		})
	}
	return found, err
}

// storageLabel names a storage without telling where it is: to all machines alike, unless it is a disk of this one.
func (c *Client) storageLabel(url string) string {
	if isLocal(url) {
		url = c.Name + " " + url
	}
	return label(url)
}

// projectLabel names a project without telling where it is.
func projectLabel(root string) string { return label(root) }

func label(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
