package remote

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/code"
)

const (
	// warnBytes is from where a person is told that much is about to travel, and askBytes from where there is a question.
	warnBytes = 100 << 20
	askBytes  = 1 << 30
)

// scan looks at the working directory, and asks before much of it travels.
func (c *Client) scan(ctx context.Context, j Job) (*code.Tree, error) {
	tree, err := code.Scan(ctx, code.Options{
		Root: j.Project.Root, Ignore: j.Project.Config.Ignore, Skip: notCode(j.Project), Memory: filepath.Join(j.Project.Private(), "sent"),
	})
	if err != nil {
		return nil, err
	}
	for _, link := range tree.Outside {
		c.Warn(fmt.Errorf("%s leads out of the project, and probably nowhere over there", link))
	}
	if tree.Bytes < warnBytes {
		return tree, nil
	}
	text := fmt.Sprintf("%s in %s are to be sent", c.Size(tree.Bytes), plural(tree.Files, "file"))
	if tree.Bytes < askBytes || c.Confirm == nil {
		c.Say("%s; .replicateignore keeps out what the job does not need", text)
		return tree, nil
	}
	yes, err := c.Confirm(text + ". Send them?")
	if err == nil && !yes {
		err = replicate.Errorf(replicate.Conflict, "nothing was sent").WithHint(".replicateignore keeps out what the job does not need")
	}
	return tree, err
}

// sendCode sends what the host lacks of the working directory, to a supervisor that has its job.
func (r *Run) sendCode(ctx context.Context, tree *code.Tree, to io.ReadWriteCloser) error {
	report, err := tree.Send(ctx, to, code.SendOptions{Progress: r.client.sending})
	if r.client.Progress != nil {
		r.client.Progress("", 0, 0)
	}
	if err == nil {
		r.client.saySent(report, tree)
	}
	return err
}

func (c *Client) sending(phase code.Phase, done, total int64) {
	if c.Progress != nil {
		c.Progress(string(phase), done, total)
	}
}

// saySent says what went, and what did not.
func (c *Client) saySent(r code.Report, tree *code.Tree) {
	text := fmt.Sprintf("Sent %s (%s)", plural(r.Files, "file"), c.Size(r.Bytes))
	if r.Wire > 0 && r.Sent < r.Bytes {
		text += ", of which " + c.Size(r.Sent) + " were not there yet"
	}
	c.Say("%s%s", text, c.LeftOut(append(tree.LeftOut, r.LeftOut...)))
	if len(r.Torn) > 0 {
		c.Warn(fmt.Errorf("changed while sent, and may be a mixture: %s", strings.Join(r.Torn, ", ")))
	}
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
