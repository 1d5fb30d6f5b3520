// Package ssh is one connection to one host: sockets, ports and commands over there, reached as the program ssh would reach them.
//
// Hosts are those of ssh: aliases, jump hosts, keys, agents, certificates and known_hosts files mean what they mean to OpenSSH,
// because the program itself is asked (ssh -G) where there is one. The connection is made by golang.org/x/crypto/ssh, or by
// OpenSSH where that alone can do what the configuration asks for.
//
// Host keys are always checked: nothing turns that off. Nothing is forwarded to the host: no agent, no variables.
//
// The package refuses to know Docker, jobs, the environment and the terminal: what it needs of these comes in with Options.
package ssh
