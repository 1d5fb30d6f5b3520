package ssh

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unanswered is how long bytes may stay without an answer of the other kernel before the connection is dead.
const unanswered = 30 * time.Second

// boundUnanswered has the kernel notice a link that is gone while there is something to send. If it does not, keepalive does, later.
func boundUnanswered(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unanswered.Milliseconds()))
	})
}

// ackNow has what was read acknowledged at once, and not 40 ms later together with something else: as long as a connection has no session, sshd holds a
// small packet back until the one before is acknowledged. The kernel forgets that it was asked.
func ackNow(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	}
}
