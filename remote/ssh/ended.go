package ssh

import (
	"net"

	"golang.org/x/sys/unix"
)

// ended says whether the other side of a connection has closed it and nothing is left to read. It takes nothing and does not wait.
func ended(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	end := false
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		end = n == 0 && err == nil || err == unix.ECONNRESET
		return true
	})
	return end || err != nil
}
