package ssh

import (
	"strings"
	"sync"
)

// passwords holds those that were right, for the life of the process: a connection that is made again, perhaps at night, does not ask
// again. They are for the same user of the host with the same key, and the same question.
var passwords sync.Map

// A wallet gives and gathers the passwords of one login. Codes that are good once are not kept.
type wallet struct {
	owner string            // user and key of the host
	given map[string]string // by question, in this login
	tried map[string]bool   // questions that were answered from memory
}

func newWallet() *wallet { return &wallet{given: map[string]string{}, tried: map[string]bool{}} }

// recall returns what was right before. The second time it is asked it was wrong after all.
func (w *wallet) recall(q Question) (string, bool) {
	if !keeps(q) || w.tried[q.Text] {
		return "", false
	}
	w.tried[q.Text] = true
	answer, ok := passwords.Load(w.owner + "\n" + q.Text)
	if !ok {
		return "", false
	}
	w.given[q.Text] = answer.(string)
	return answer.(string), true
}

// note keeps an answer until it is known whether it was right.
func (w *wallet) note(q Question, answer string) {
	if keeps(q) {
		w.given[q.Text] = answer
	}
}

// right keeps what was given, for the process.
func (w *wallet) right() {
	for text, answer := range w.given {
		passwords.Store(w.owner+"\n"+text, answer)
	}
}

// keeps says whether the answer to a question is good again.
func keeps(q Question) bool {
	return q.Hidden && strings.Contains(strings.ToLower(q.Text), "password")
}
