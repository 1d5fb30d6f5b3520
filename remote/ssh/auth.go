package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/replicate/replicate"
)

// maxOffers is how many keys are offered. sshd ends the connection after six refusals (MaxAuthTries), and a password may be one of them.
const maxOffers = 5

// errNobody is the answer where there is nobody to ask.
var errNobody = errors.New("there is no terminal to ask at")

// Where this package is not let in, the ssh program might be: with a key in a security token, or with a ticket of Kerberos if there is one.
var (
	errOpenSSH = errors.New("only the ssh program can go on")
	errTicket  = errors.New("the ssh program may have a ticket")
)

// A login chooses how to authenticate, after seeing what the host allows.
type login struct {
	c      *config
	o      Options
	ask    func(Question) (string, error)
	ring   *keyring
	wallet *wallet

	offered []string // names of the keys
	asked   map[string]int
	allowed []string // what the host said last
	fatal   error    // ends it

	lost func() error // what ended the connection: x/crypto takes that for one more refusal
}

func newLogin(c *config, o Options, ask func(Question) (string, error), lost func() error) (*login, error) {
	l := &login{c: c, o: o, lost: lost, asked: map[string]int{}, wallet: newWallet()}
	l.ask = func(q Question) (string, error) {
		answer, err := ask(q)
		if err != nil && !errors.Is(err, errNobody) {
			l.fatal = err // the person gave up
		}
		return answer, err
	}
	var err error
	l.ring, err = newKeyring(c, o, l.ask)
	return l, err
}

// next is an ssh.ClientAuthCallback.
func (l *login) next(state *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	l.allowed = state.AllowedMethods
	if err := cmp.Or(l.fatal, l.lost()); err != nil {
		return nil, err
	}
	if slices.Contains(l.allowed, "publickey") && !l.c.noKeys {
		if k, ok := l.key(); ok {
			return ssh.PublicKeys(k), nil
		}
	}
	if err := l.onlyOpenSSH(); err != nil {
		return nil, err
	}
	for _, method := range l.c.methods {
		if l.o.Ask != nil && !l.c.batch && slices.Contains(l.allowed, method) && l.asked[method] < l.c.prompts {
			l.asked[method]++
			return l.interactive(method), nil
		}
	}
	if l.fatal != nil {
		return nil, l.fatal
	}
	return nil, l.refused()
}

// key returns the next key that can be offered.
func (l *login) key() (key, bool) {
	for len(l.ring.keys) > 0 && len(l.offered) < maxOffers && l.fatal == nil {
		k := l.ring.keys[0]
		l.ring.keys = l.ring.keys[1:]
		if k.public == nil { // an old file, which does not say whose it is
			signer, err := k.signer()
			if err != nil {
				continue
			}
			k.public = signer.PublicKey()
		}
		l.offered = append(l.offered, k.name)
		return k, true
	}
	return key{}, false
}

// onlyOpenSSH says whether there is a way in that the ssh program alone can take.
func (l *login) onlyOpenSSH() error {
	switch {
	case l.o.Program == "":
	case slices.Contains(l.allowed, "publickey") && !l.c.noKeys && (l.c.pkcs11 != "" || l.ring.hardware != ""):
		return errOpenSSH
	case l.c.gssapi && slices.Contains(l.allowed, "gssapi-with-mic"):
		return errTicket
	}
	return nil
}

// interactive asks the person.
func (l *login) interactive(method string) ssh.AuthMethod {
	if method == "password" {
		return ssh.PasswordCallback(func() (string, error) {
			return l.answer(Question{Text: fmt.Sprintf("password of %s@%s:", l.c.user, l.c.address.Host), Hidden: true})
		})
	}
	return ssh.KeyboardInteractive(func(name, instruction string, questions []string, echos []bool) ([]string, error) {
		answers := make([]string, len(questions))
		for i, question := range questions {
			text := strings.Join(slices.DeleteFunc([]string{printable(name), printable(instruction),
				fmt.Sprintf("%s: %s", l.c.address.Host, printable(question))}, func(s string) bool { return s == "" }), "\n")
			name, instruction = "", ""
			var err error
			if answers[i], err = l.answer(Question{Text: text, Hidden: !echos[i]}); err != nil {
				return nil, err
			}
		}
		return answers, nil
	})
}

// answer answers from memory, or asks.
func (l *login) answer(q Question) (string, error) {
	if answer, ok := l.wallet.recall(q); ok {
		return answer, nil
	}
	answer, err := l.ask(q)
	if err == nil {
		l.wallet.note(q, answer)
	}
	return answer, err
}

// refused explains why nothing is left to try.
func (l *login) refused() error {
	user := l.c.user
	e := replicate.Errorf(replicate.Permission, "%s is not let in: %s", user, l.tried())
	interactive := slices.ContainsFunc(l.allowed, func(m string) bool { return m == "password" || m == "keyboard-interactive" })
	switch {
	case len(l.ring.locked) > 0:
		return e.WithHint("ssh-add %s, then try again", l.ring.locked[0])
	case len(l.ring.keys) > 0:
		return e.WithHint("name the right key: -i, or IdentityFile and IdentitiesOnly yes in ssh_config; at most %d are offered", maxOffers)
	case len(l.offered) > 0 || !interactive:
		return e.WithHint("check the user, and copy a key there: ssh-copy-id %s", l.c.address)
	case l.o.Ask == nil || l.c.batch:
		return e.WithHint("the host would take a password, but there is no terminal to ask at: ssh-copy-id %s", l.c.address)
	}
	return e
}

// tried says what was tried, in words.
func (l *login) tried() string {
	var parts []string
	if len(l.offered) > 0 {
		parts = append(parts, "the host takes none of "+strings.Join(l.offered, ", "))
	}
	if len(l.asked) > 0 {
		parts = append(parts, "no password was right")
	}
	if len(l.ring.locked) > 0 {
		parts = append(parts, fmt.Sprintf("%s has a passphrase that nobody gave", l.ring.locked[0]))
	}
	if len(parts) == 0 {
		parts = append(parts, "there is no key to offer")
	}
	return fmt.Sprintf("%s (it takes %s)", strings.Join(parts, "; "), strings.Join(l.allowed, ", "))
}

// asker returns how questions about one host are put: to nobody if there is nobody, and with time stopped meanwhile.
func asker(ctx context.Context, c *config, o Options, clock *patience) func(Question) (string, error) {
	return func(q Question) (string, error) {
		if o.Ask == nil || c.batch {
			return "", errNobody
		}
		clock.stop()
		defer clock.restart()
		return o.Ask(ctx, q)
	}
}
