// Package job runs one command to its end, whatever happens to those who watch it, and tells them what it did.
//
// The supervisor (Supervise) is process 1 of a container, or a process of its own on this machine (Local). It gets the job as one line
// of JSON on stdin, and keeps everything else in one directory of plain files:
//
//	spec.json    the job, without secrets
//	status.json  the State, replaced by rename
//	log/         what the job printed, as frames, in segments named by the offset of their first byte; sealed ones are zstd,
//	             and gzip where an older supervisor left them
//	ctl.sock     answers Requests
//	lock         locked by the living supervisor
//	followers    locked, together, by those who follow the log
//	uploader.log what uploaders complained of
//	home/        HOME of a user whom the image does not know
//
// # Promises
//
//  1. Nobody who reads the log can hold up the job: the log is a file, and what goes to stdout is a bounded copy of its beginning.
//  2. No byte of the log is missing or doubled for a reader that goes on at its offset; what was dropped for want of room shows as a gap.
//  3. The exit code is in status.json before the supervisor ends. One that is started again after that ends at once, with the same code.
//  4. Values of secrets are in no file.
//
// # The line
//
// A client writes a newline, then a Line, then a newline. Clients come and go; half a line of a dead one is cut off by the newline of the next, and
// what does not parse is dropped. Later lines bring newer secrets. Keys are only ever added, and unknown ones ignored, as client and
// supervisor may differ in version.
//
// # Frames
//
//	@<offset> <unix ms> <o|e|s> <n>\n<n bytes>\n
//
// o and e are what the job wrote to stdout and stderr, s is a Note of the supervisor in JSON. offset counts the payload bytes of all frames before.
//
// The package knows neither ssh nor Docker, and of a repository nothing but how it compresses.
package job
