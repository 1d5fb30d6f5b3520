package ssh

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentPatience bounds the list of an ssh-agent. Signing may wait for a person.
const agentPatience = 5 * time.Second

// passphraseTries is how often a passphrase is asked for, as in OpenSSH.
const passphraseTries = 3

// A key may be offered to a host. Its public half is all that this needs.
type key struct {
	public ssh.PublicKey              // nil if only the passphrase would tell
	signer func() (ssh.Signer, error) // may ask
	name   string                     // for messages
}

// PublicKey, Sign and SignWithAlgorithm make an ssh.AlgorithmSigner of a key whose private half is not needed unless the host takes it.
func (k key) PublicKey() ssh.PublicKey { return k.public }

func (k key) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	signer, err := k.signer()
	if err != nil {
		return nil, err
	}
	return signer.Sign(rand, data)
}

func (k key) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := k.signer()
	if err != nil {
		return nil, err
	}
	if able, ok := signer.(ssh.AlgorithmSigner); ok {
		return able.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// A keyring gathers the keys for one host, in the order they are offered.
type keyring struct {
	c   *config
	o   Options
	ask func(Question) (string, error)

	agent net.Conn // nil without one
	keys  []key

	hardware string   // a key file that only OpenSSH can use, "" for none
	locked   []string // key files whose passphrase nobody was there to give
}

// newKeyring finds keys: the one that was asked for, those of the agent that ssh_config names, the others of the agent, then files.
// A key that has a certificate is offered with it first.
func newKeyring(c *config, o Options, ask func(Question) (string, error)) (*keyring, error) {
	r := &keyring{c: c, o: o, ask: ask}
	held := r.listAgent()
	var named, files []key
	used := map[string]bool{}
	for _, file := range c.identities {
		k, public, err := r.fromFile(file, held)
		if err != nil && file == o.Identity {
			r.close()
			return nil, fmt.Errorf("identity %s: %w", file, err)
		}
		if err != nil || k.signer == nil {
			continue
		}
		if public != nil {
			used[string(public.Marshal())] = true
		}
		switch {
		case file == o.Identity:
			r.keys = append(r.certified(k, file), r.keys...)
		case public != nil && held[string(public.Marshal())] != nil:
			named = append(named, r.certified(k, file)...)
		default:
			files = append(files, r.certified(k, file)...)
		}
	}
	r.keys = append(r.keys, named...)
	if !c.identitiesOnly {
		r.keys = append(r.keys, r.others(held, used)...)
	}
	r.keys = append(r.keys, files...)
	return r, nil
}

func (r *keyring) close() {
	if r.agent != nil {
		r.agent.Close()
	}
}

// A heldKey is a key in the agent; order is its place there.
type heldKey struct {
	ssh.Signer
	order   int
	comment string
}

// listAgent returns the keys of the agent by their public halves. An agent that does not answer is a warning.
func (r *keyring) listAgent() map[string]*heldKey {
	if r.c.agent == "" {
		return nil
	}
	conn, err := net.DialTimeout("unix", r.c.agent, agentPatience)
	if err != nil {
		r.o.warn(fmt.Sprintf("ssh-agent does not answer: %s", said(err)), "")
		return nil
	}
	conn.SetDeadline(time.Now().Add(agentPatience))
	client := agent.NewClient(conn)
	listed, err := client.List()
	var signers []ssh.Signer
	if err == nil {
		signers, err = client.Signers()
	}
	if err != nil {
		conn.Close()
		r.o.warn(fmt.Sprintf("ssh-agent does not answer: %s", said(err)), "")
		return nil
	}
	conn.SetDeadline(time.Time{})
	r.agent = conn
	held := map[string]*heldKey{}
	for i, signer := range signers {
		comment := ""
		if i < len(listed) {
			comment = listed[i].Comment
		}
		held[string(signer.PublicKey().Marshal())] = &heldKey{signer, i, comment}
	}
	return held
}

// others returns the keys of the agent that were not used yet, in its order.
func (r *keyring) others(held map[string]*heldKey, used map[string]bool) (list []key) {
	for _, h := range slices.SortedFunc(maps.Values(held), func(a, b *heldKey) int { return a.order - b.order }) {
		if !used[string(h.PublicKey().Marshal())] {
			k := key{public: h.PublicKey(), name: orElse(printable(h.comment), "a key") + " of ssh-agent",
				signer: func() (ssh.Signer, error) { return h, nil }}
			list = append(list, r.certified(k, "")...)
		}
	}
	return list
}

// fromFile makes a key of a file, or of the agent's key whose public half is in the file or beside it. A file that does not hold a key
// which can be used here gives a key without signer.
func (r *keyring) fromFile(file string, held map[string]*heldKey) (key, ssh.PublicKey, error) {
	public := publicHalf(file)
	data, err := os.ReadFile(file)
	if public == nil && err != nil {
		return key{}, nil, err
	}
	parsed, parseErr := ssh.ParsePrivateKey(data)
	missing, encrypted := errors.AsType[*ssh.PassphraseMissingError](parseErr)
	switch {
	case parseErr == nil:
		public = parsed.PublicKey()
	case encrypted && missing.PublicKey != nil:
		public = missing.PublicKey
	}
	if public != nil {
		if h := held[string(public.Marshal())]; h != nil {
			return key{public: public, name: file + " by ssh-agent", signer: func() (ssh.Signer, error) { return h, nil }}, public, nil
		}
	}
	switch {
	case parseErr == nil:
		return key{public: public, name: file, signer: func() (ssh.Signer, error) { return parsed, nil }}, public, nil
	case encrypted:
		return key{public: public, name: file, signer: func() (ssh.Signer, error) { return r.unlock(file, data) }}, public, nil
	case public != nil && strings.HasPrefix(public.Type(), "sk-") && err == nil:
		r.hardware = file
		return key{}, public, nil
	case err != nil:
		return key{}, public, err
	}
	return key{}, public, parseErr
}

// publicHalf reads the public key of a file.pub, or of the file if that is one itself; nil if there is none.
func publicHalf(file string) ssh.PublicKey {
	if public := publicKeyIn(file + ".pub"); public != nil {
		return public
	}
	return publicKeyIn(file)
}

// publicKeyIn reads a public key or a certificate; nil if the file is not one.
func publicKeyIn(file string) ssh.PublicKey {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil
	}
	return public
}

// certified returns a key with each of its certificates, then alone. file is "" for a key of the agent alone.
func (r *keyring) certified(k key, file string) (list []key) {
	if k.public == nil {
		return []key{k}
	}
	names := r.c.certificates
	if file != "" {
		names = append([]string{file + "-cert.pub"}, names...)
	}
	for _, name := range names {
		cert, ok := publicKeyIn(name).(*ssh.Certificate)
		if ok && same(cert.Key, k.public) {
			list = append(list, key{public: cert, signer: k.signer, name: name})
		}
	}
	return append(list, k)
}

// unlocked holds the keys whose passphrase was given, by the hash of their file: it is asked for once per process.
var unlocked sync.Map

// unlock asks for a passphrase.
func (r *keyring) unlock(file string, data []byte) (ssh.Signer, error) {
	if slices.Contains(r.locked, file) { // it was asked for, for the certificate
		return nil, fmt.Errorf("%s is locked", file)
	}
	id := sha256.Sum256(data)
	if signer, ok := unlocked.Load(id); ok {
		return signer.(ssh.Signer), nil
	}
	for try := range passphraseTries {
		text := fmt.Sprintf("passphrase of %s:", file)
		if try > 0 {
			text = "that is not it; " + text
		}
		passphrase, err := r.ask(Question{Text: text, Hidden: true})
		if errors.Is(err, errNobody) {
			r.locked = append(r.locked, file)
		}
		if err != nil {
			return nil, err
		}
		if passphrase == "" { // as in OpenSSH: go on without this key
			break
		}
		signer, err := ssh.ParsePrivateKeyWithPassphrase(data, []byte(passphrase))
		if err == nil {
			unlocked.Store(id, signer)
			return signer, nil
		}
	}
	r.locked = append(r.locked, file)
	return nil, fmt.Errorf("%s is locked", file)
}
