package require

import "syscall"

// nobody is the user who owns nothing.
const nobody = 65534

// becomeNobody takes the rights on files that root has from the calling thread.
func becomeNobody() error {
	if err := syscall.Setfsgid(nobody); err != nil {
		return err
	}
	return syscall.Setfsuid(nobody)
}
