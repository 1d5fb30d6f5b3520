package recorder

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/replicate/replicate"
)

// A Client drives a recorder in another process over its two pipes, as a training script does. It is for one goroutine.
type Client struct {
	in   io.Writer
	out  *bufio.Reader
	last int
	tell func(Remark)
}

// NewClient returns a client that writes to the recorder's in and reads its out. tell is given the lines for people.
func NewClient(in io.Writer, out io.Reader, tell func(Remark)) *Client {
	return &Client{in: in, out: bufio.NewReader(out), tell: tell}
}

// Post sends a request that has no answer. fields is anything that encodes as a JSON object.
func (c *Client) Post(op string, fields map[string]any) error {
	line := map[string]any{"op": op}
	for name, value := range fields {
		line[name] = value
	}
	return c.write(line)
}

// Call sends a request, waits for its answer and reads it into answer, which may be nil. What the recorder refuses is a
// *replicate.Error of the kind it says.
func (c *Client) Call(op string, fields map[string]any, answer any) error {
	c.last++
	line := map[string]any{"id": c.last, "op": op}
	for name, value := range fields {
		line[name] = value
	}
	if err := c.write(line); err != nil {
		return err
	}
	for {
		data, err := c.out.ReadBytes('\n')
		if err != nil {
			return replicate.Errorf(replicate.Unavailable, "the recorder went away: %w", err)
		}
		var got struct {
			ID    *int     `json:"id"`
			OK    bool     `json:"ok"`
			Error *refused `json:"error"`
			Remark
		}
		switch err := json.Unmarshal(data, &got); {
		case err != nil:
			return fmt.Errorf("read the recorder's answer: %w", err)
		case got.ID == nil:
			c.tell(got.Remark)
		case *got.ID != c.last || !got.OK && got.Error == nil: // progress
		case got.Error != nil:
			return &replicate.Error{Kind: got.Error.Kind, Err: errors.New(got.Error.Message), Hint: got.Error.Hint}
		case answer == nil:
			return nil
		default:
			return json.Unmarshal(data, answer)
		}
	}
}

func (c *Client) write(line map[string]any) error {
	if _, err := c.in.Write(encode(line)); err != nil {
		return replicate.Errorf(replicate.Unavailable, "the recorder went away: %w", err)
	}
	return nil
}
