package require

import "errors"

// becomeNobody cannot be done for one thread here.
func becomeNobody() error { return errors.ErrUnsupported }
