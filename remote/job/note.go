package job

import "encoding/json"

// A Note is what the supervisor says in the log, in frames of the stream Notes. One of its fields is set; what a reader does not know it skips.
type Note struct {
	Attempt int    `json:"attempt,omitempty"` // this attempt begins
	Say     string `json:"say,omitempty"`     // for people: what the job waits for, what went wrong beside it
	Gap     int64  `json:"gap,omitempty"`     // so many bytes could not be written
	End     *State `json:"end,omitempty"`     // the job has ended: the last frame
}

// ParseNote reads the data of a frame of the stream Notes.
func ParseNote(data []byte) (Note, error) {
	var n Note
	err := json.Unmarshal(data, &n)
	return n, err
}
