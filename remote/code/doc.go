// Package code takes a working directory to the machine that runs it, and puts it down there: both ends of the way.
//
// What goes is what a commit would save, found by the same walk and rules. It goes in chunks, of which only those travel that the other end does
// not have (Tree.Send, Receive). Modes, mtimes to the nanosecond, links, empty directories and names of any bytes arrive as they were, and a hash was
// checked for every byte.
//
// It knows nothing of SSH, Docker, jobs and storage: it is given streams and directories.
//
// # Manifests
//
//	"RPLCODE1" | entries | BLAKE3 of all before
//
// An entry is the length of its path and the path; its kind, a byte: 0 file, 1 link, 2 directory; mode, 07777; mtime in nanoseconds since 1970. Then of a link the
// length of its target and the target; of a file its size, the number of its pieces and for each its size and BLAKE3. Numbers are varints, mtimes signed ones.
// Entries are in the order of a tree, every directory before what is in it. An entry with an empty path is the end.
//
// # Chunks
//
// The pieces of a file below 1 MiB are the file; a larger one is cut where commits cut it. The receiver keeps chunks by content, for the next time
// and for other trees: <dir>/<2 hex>/<64 hex>, written under another name and renamed, so that several may write at once and what arrived before
// a line was cut stays. A chunk is verified when it arrives and when it is used; a damaged one is removed and asked for again.
// Its mtime is when it was last used, to within a day, and <dir>/trees/<name> are the manifests of trees that were received: by these Prune knows what is not
// needed any more.
//
// # Protocol
//
// A message is a type, a byte; decoded and stored bytes of its payload, u32 each; and the payload, in the form of a frame of a pack. The sender speaks first:
//
//	m  a part of the manifest, up to 1 MiB
//	M  the manifest is complete; a bitmap, as that of w, of the pieces that follow unasked, in c: they are probably new
//	   w  a bitmap of the distinct pieces of the manifest, in their order, bit 0 first: those that are wanted
//	c  wanted chunks, one behind the other in their order: several of up to 1 MiB together, or a larger one
//	   w  again for those that turned out to be damaged; or
//	   d  the tree is in place; or
//	   e  kind, NUL and text of the error that ends it
//
// A sender that meets a file with other content than it announced begins again with m.
package code
