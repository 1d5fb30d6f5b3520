// Package ssh is one connection to one host: sockets, ports and commands over there, reached as the program ssh would reach them.
//
// Hosts are those of ssh: aliases, jump hosts, keys, agents, certificates and known_hosts files mean what they mean to OpenSSH,
// because the program itself is asked (ssh -G) where there is one. The connection is made by golang.org/x/crypto/ssh, or by
// OpenSSH where that alone can do what the configuration asks for.
//
// What is not done by x/crypto and goes by the ssh program: keys in security tokens outside an ssh-agent, PKCS#11, tickets of Kerberos,
// a connection that the user has already made (ControlMaster), addresses to bind to, KnownHostsCommand, RevokedHostKeys and host-based
// authentication. What is not done at all: ciphers, key exchanges and preferred methods of ssh_config, keys of hosts in DNS, banners.
//
// Host keys are always checked: nothing turns that off. Nothing is forwarded to the host: no agent, no variables.
//
// The package refuses to know Docker, jobs, the environment and the terminal: what it needs of these comes in with Options.
package ssh
