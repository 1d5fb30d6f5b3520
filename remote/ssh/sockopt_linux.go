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
