package ssh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/replicate/replicate"
)

// A verifier decides whether the key of a host is the right one.
type verifier struct {
	c    *config
	o    Options
	ask  func(Question) (string, error)
	keys hostKeys

	fingerprint string // of the key that was accepted
}

func newVerifier(c *config, o Options, ask func(Question) (string, error)) (*verifier, error) {
	keys, err := readHostKeys(slices.Concat(c.knownHosts, c.globalKnownHosts))
	return &verifier{c: c, o: o, ask: ask, keys: keys}, err
}

// name is what the host is called in known_hosts.
func (v *verifier) name() string {
	if v.c.alias != "" {
		return strings.ToLower(v.c.alias)
	}
	return knownhosts.Normalize(strings.ToLower(v.c.hostport()))
}

// of returns the lines about the host.
func (v *verifier) of(marker string) hostKeys { return v.keys.of(v.name(), marker) }

// near returns the lines about the same name without the port. As in OpenSSH they are as good as others if they fit, and say nothing
// if they do not: another port may be that of another machine.
func (v *verifier) near(marker string) hostKeys {
	if bare := strings.ToLower(v.c.hostname); v.c.alias == "" && bare != v.name() {
		return v.keys.of(bare, marker)
	}
	return nil
}

// authorities returns those that sign the keys of the host.
func (v *verifier) authorities() hostKeys {
	return slices.Concat(v.of("cert-authority"), v.near("cert-authority"))
}

// certAlgorithms and plainAlgorithms are in the order OpenSSH prefers them.
var (
	certAlgorithms = []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
	plainAlgorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
)

// algorithms are those the host may show its key with: of the kinds that are known of it, since a host has keys of several kinds
// and x/crypto would ask for one that nobody here has seen.
func (v *verifier) algorithms() (list []string) {
	if len(v.authorities()) > 0 {
		list = slices.Clone(certAlgorithms)
	}
	known := v.of("")
	if len(known) > 0 {
		return append(list, known.algorithms()...)
	}
	for _, algorithm := range slices.Concat(v.near("").algorithms(), v.preferred()) {
		if !slices.Contains(list, algorithm) {
			list = append(list, algorithm)
		}
	}
	return list
}

// algorithms are those that fit the keys, in the order OpenSSH prefers them; those of rare kinds are last.
func (keys hostKeys) algorithms() (list []string) {
	for _, algorithm := range plainAlgorithms {
		if slices.ContainsFunc(keys, func(k hostKey) bool { return slices.Contains(signing(k.key.Type()), algorithm) }) {
			list = append(list, algorithm)
		}
	}
	for _, k := range keys {
		if kinds := signing(k.key.Type()); !slices.Contains(list, kinds[0]) {
			list = append(list, kinds...)
		}
	}
	return list
}

// preferred is what ssh_config says of hosts that are not known.
func (v *verifier) preferred() []string {
	var list []string
	for _, algorithm := range v.c.hostKeyAlgorithms {
		if slices.Contains(plainAlgorithms, algorithm) {
			list = append(list, algorithm)
		}
	}
	if len(list) == 0 {
		return plainAlgorithms
	}
	return list
}

// signing returns the algorithms that keys of a type sign with.
func signing(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// check is an ssh.HostKeyCallback.
func (v *verifier) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		if ca, ok := v.authorities().with(cert.SignatureKey); ok {
			return v.checkCertificate(cert, ca)
		}
		key = cert.Key // a certificate of somebody unknown is as good as the key in it
	}
	if line, ok := v.keys.revoked(key); ok {
		return v.isRevoked(line)
	}
	v.fingerprint = ssh.FingerprintSHA256(key)
	known := v.of("")
	if _, ok := slices.Concat(known, v.near("")).with(key); ok {
		return nil
	}
	if len(known) > 0 {
		return v.changed(known[0], key)
	}
	return v.introduce(key)
}

func (v *verifier) checkCertificate(cert *ssh.Certificate, ca hostKey) error {
	for _, key := range []ssh.PublicKey{cert.Key, cert.SignatureKey} {
		if line, ok := v.keys.revoked(key); ok {
			return v.isRevoked(line)
		}
	}
	name := v.c.hostname
	if v.c.alias != "" {
		name = v.c.alias
	}
	err := error(nil)
	if cert.CertType != ssh.HostCert {
		err = errors.New("it is not for hosts")
	} else {
		err = (&ssh.CertChecker{}).CheckCert(name, cert)
	}
	if err != nil {
		return replicate.Errorf(replicate.Permission, "the certificate of the host, signed by the authority of %s:%d, is not valid: %s",
			ca.file, ca.line, said(err)).WithHint("whoever runs that authority has to sign the host's key again")
	}
	v.fingerprint = ssh.FingerprintSHA256(cert.Key)
	return nil
}

// introduce decides on the key of a host that nobody here has seen.
func (v *verifier) introduce(key ssh.PublicKey) error {
	kind := strings.TrimPrefix(key.Type(), "ssh-")
	switch v.c.strict {
	case "off", "accept-new":
		hint := ""
		if v.c.strict == "off" {
			hint = "StrictHostKeyChecking no counts as accept-new: a key that changes later is refused"
		}
		v.o.warn(fmt.Sprintf("%s was not known; its %s key %s is remembered", v.c.address.Host, kind, v.fingerprint), hint)
	case "yes":
		return v.unknown(kind)
	default:
		answer, err := v.ask(Question{Text: fmt.Sprintf("%s (%s) is not known here. Its %s key is %s.\nIs that right, and shall it be remembered? [yes/no]",
			v.c.address.Host, v.c.hostport(), kind, v.fingerprint)})
		if errors.Is(err, errNobody) {
			return v.unknown(kind)
		}
		if err != nil {
			return err
		}
		if answer = strings.TrimSpace(answer); answer != "yes" && answer != v.fingerprint {
			return replicate.Errorf(replicate.Permission, "its key was not accepted")
		}
	}
	if err := v.remember(key); err != nil {
		v.o.warn(fmt.Sprintf("the key of %s is not remembered: %v", v.c.address.Host, err), "")
	}
	return nil
}

// remember appends a key to the first of the user's files, under a lock, and once if several want to.
func (v *verifier) remember(key ssh.PublicKey) error {
	if len(v.c.knownHosts) == 0 {
		return errors.New("UserKnownHostsFile names no file")
	}
	path := v.c.knownHosts[0]
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if _, ok := parseHostKeys(data, path).of(v.name(), "").with(key); ok {
		return nil
	}
	name := v.name()
	if v.c.hashNames {
		name = knownhosts.HashHostname(name)
	}
	line := name + " " + string(ssh.MarshalAuthorizedKey(key))
	if len(data) > 0 && data[len(data)-1] != '\n' {
		line = "\n" + line
	}
	_, err = f.WriteString(line)
	return err
}

func (v *verifier) unknown(kind string) error {
	return replicate.Errorf(replicate.Permission, "the host is not known here; its %s key is %s", kind, v.fingerprint).
		WithHint("run ssh %s once, and compare", v.c.address)
}

func (v *verifier) changed(line hostKey, key ssh.PublicKey) error {
	return replicate.Errorf(replicate.Conflict, "the key of the host has changed: %s:%d has %s, the host shows %s",
		line.file, line.line, ssh.FingerprintSHA256(line.key), ssh.FingerprintSHA256(key)).WithHint("%s", v.mend(line))
}

// gone explains a host that has no key of the kinds that are known of it.
func (v *verifier) gone(line hostKey) error {
	return replicate.Errorf(replicate.Conflict, "the key of the host has changed: it has no %s key any more, as %s:%d has",
		line.key.Type(), line.file, line.line).WithHint("%s", v.mend(line))
}

func (v *verifier) mend(line hostKey) string {
	return fmt.Sprintf("somebody may be listening; if the machine was set up anew: ssh-keygen -f %s -R '%s'", line.file, v.name())
}

func (v *verifier) isRevoked(line hostKey) error {
	return replicate.Errorf(replicate.Permission, "the key of the host is revoked by %s:%d", line.file, line.line).
		WithHint("do not connect before whoever runs it has given it a new key")
}
