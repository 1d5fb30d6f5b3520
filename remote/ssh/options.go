package ssh

import "context"

// Options are what a connection needs from the world outside. The zero value has no ssh program, no agent, nobody to ask, and no home.
// Ask and Warn may be called from other goroutines than that of the caller; Ask is called for one question at a time.
type Options struct {
	Identity string // a private key that is offered before all others
	Config   string // an ssh_config in place of the user's and the system's, as ssh -F; "" for those
	Program  string // the path of the ssh program, "" if there is none: then ssh_config is read here, within limits

	// Getenv returns a variable of the environment: HOME, SSH_AUTH_SOCK, and those that ssh_config names as ${NAME}. nil: none is set.
	Getenv func(name string) string

	// Ask puts a question to the person at the terminal. nil: there is nobody; what had to be asked is an error then.
	Ask func(ctx context.Context, q Question) (answer string, err error)

	// Warn tells the person something that changes nothing. hint may be "". nil: nobody listens.
	Warn func(text, hint string)

	// Transport is OpenSSH to have the ssh program make the connection, or "": it does where it must.
	Transport string
}

// OpenSSH is the Transport of the ssh program.
const OpenSSH = "openssh"

// A Question is put to a person.
type Question struct {
	Text   string // whole, with its final mark, without the blank behind it; may have several lines
	Hidden bool   // the answer is a secret and not shown while it is typed
}

func (o Options) getenv(name string) string {
	if o.Getenv == nil {
		return ""
	}
	return o.Getenv(name)
}

func (o Options) warn(text, hint string) {
	if o.Warn != nil {
		o.Warn(text, hint)
	}
}
