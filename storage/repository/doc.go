// Package repository says what the bytes in a storage mean: chunks, packs, trees, records, commits, streams. It writes them, reads them, and
// verifies every byte on the way.
//
// It refuses to know where the bytes are (package storage does), how experiments are searched, sorted and counted (package index), how they are shown, and
// what a metric or a parameter stands for. It reads no environment and no clock of its own but the store's.
//
// This comment is the format. All samples in it are of one small commit, and a test keeps them equal to what is written.
//
// # Objects
//
// A repository is a set of objects under flat keys. An object never changes: its name is a hash of its content, or of what commits to its content.
// The exceptions are replicate.json and the heartbeats.
//
//	replicate.json               version of the format, id of the repository
//	pack/<2 hex>/<62 hex>        frames: the bytes of files, trees and streams; the name is the hash of the pack's directory
//	log/<32 hex>                 new records, one a line; the name is the hash of the bytes, cut to 128 bits
//	index/<1 digit>-<32 hex>     a segment: records merged from other objects; generation, then the hash of its first frame, cut to 128 bits
//	live/<experiment>            a heartbeat, overwritten every half minute
//	gc/<32 hex>.condemned        packs that may go, and
//	gc/<32 hex>.sentence         those that must
//
// Every hash is BLAKE3 with 256 bits, in text as lower-case hex. Numbers in binary are little-endian. Objects under other keys are ignored and never deleted.
//
// Metadata is the union of all records in log/ and index/, wherever they lie, however often. So any number of writers need no lock, merging changes
// no meaning, and a retry does no harm. Data is in packs; a record names the packs it needs and the frames of its tree, a tree names the frames of its files.
//
// # Versions
//
//	{"replicate":1,"id":"0b1c2d3e4f5061728394a5b6c7d8e9f0","created":"2026-03-04T05:06:07Z","chunking":"gear1/256Ki/1Mi/4Mi"}
//
// A reader refuses a repository whose number is higher than its own, naming what it needs. Within one number, the format grows where old
// readers pass over what is new: keys of records and of tree lines, kinds of records (kept as they are by merges), keys of objects. What an old reader must not
// pass over (a codec, a kind of tree entry, the version of a tree or a segment) is an error for the one thing it stands in, and says that it needs a newer replicate.
//
// # Records
//
// A record is one line of strict JSON, at most 4 MiB, its keys in a fixed order. The first key tells the kind. Parameters and metrics are in the encoding of
// values of package replicate: floats carry "." or "e", NaN and infinities are strings. What is unknown or empty is left out.
//
// An experiment begins with a row of its own:
//
//	{"experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","created":"2026-03-04T05:06:07.123456789Z","user":"dev","host":"gpu1",
//	"command":["train.py","--lr","0.01"],"params":{"lr":0.01,"seed":7},"metric":["loss","minimize"],
//	"tree":[{"pack":"4dfb1fe24975695851b24d676a6f21ac9a5c2117e8eefaafa9c3330a12cbf927","off":2097213,"len":552,"raw":1051,
//	"hash":"ab9bccf5dee835c24d5046463403516e159bce2478a57631ad6836f126af1cea"}],
//	"packs":["4dfb1fe24975695851b24d676a6f21ac9a5c2117e8eefaafa9c3330a12cbf927"],"before":"2026-03-04T06:06:07.123456789Z"}
//
// A commit has its tree's frames, in order, and every pack that it needs for anything:
//
//	{"commit":"3be0c21d4f5061728394a5b6c7d8e9fa","experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","seq":0,
//	"time":"2026-03-04T05:06:07.123456789Z","step":8,"metrics":{"loss":0.3,"accuracy":1.0},
//	"tree":[{"pack":"4dfb1fe24975695851b24d676a6f21ac9a5c2117e8eefaafa9c3330a12cbf927","off":2097213,"len":552,"raw":1051,
//	"hash":"ab9bccf5dee835c24d5046463403516e159bce2478a57631ad6836f126af1cea"}],
//	"packs":["4dfb1fe24975695851b24d676a6f21ac9a5c2117e8eefaafa9c3330a12cbf927"],"files":5,"bytes":2097185,"added":2097152,
//	"before":"2026-03-04T06:06:07.123456789Z"}
//
// A stretch of a stream has its frame in a pack, or inline when it is small:
//
//	{"stream":"metrics","experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","writer":"5c0de1f2a3b4c5d6","seq":0,"range":[0,2],
//	"inline":"ASi1L/0AAM0CAIKFExiARw4YQ0/HrFl+E0U9VjbxJfvv2ESTOgHnKF8IpRP+RQZPhHYy7g1LSjD/FETLmkNYFOFdMPj3sm7jHA0quqIYJgCogmkiL99tMq
//	OxEQIQBaMLje0J","summary":{"accuracy":{"first":[8,1,1.0],"last":[8,1,1.0],"min":[8,1,1.0],"max":[8,1,1.0]},
//	"loss":{"first":[7,0,0.31],"last":[8,1,0.3],"min":[8,1,0.3],"max":[7,0,0.31]}},"before":"2026-03-04T06:06:07.123456789Z"}
//
// These three are rows: "before" is the time, by the store's clock, until which a row must have landed to be believed without a look at its packs.
// The other two kinds change what rows say. A set changes facts of an experiment: for each field, and each tag inside tags, the latest "at" wins. A delete
// kills the rows of its id that were checked before it; that of a commit says of which experiment.
//
//	{"set":"9f0c1d2e3f405162738495a6b7c8d9ea","at":"2026-03-04T05:07:07.123456789Z","by":"dev@gpu1","exit_code":1,
//	"status":"failed","tags":{"paper":true}}
//	{"delete":"3be0c21d4f5061728394a5b6c7d8e9fa","experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","at":"2026-03-04T06:06:07.123456789Z",
//	"by":"dev@gpu1"}
//
// created, time and ended are of the clock of the machine that ran the experiment, and are for showing only; before and at are of the store's.
//
// # Packs
//
// A pack is at most 64 MiB, written front to back:
//
//	"RPLPACK1" nonce[16] | frame … | directory, zstd | trailer[40]
//
// Here the head of the sample, and its first frame, which holds two small files as they are:
//
//	head: 52 50 4c 50 41 43 4b 31 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02
//	frame: 00 69 6d 70 6f 72 74 20 72 65 70 6c 69 63 61 74 65 0a 6c 72 20 30 2e 30 31 20
//	frame: 69 73 20 62 65 73 74 0a
//
// A frame is one byte for its codec and the payload: 0 as it is; 1 zstd; 2 and 3 zstd of bytes that were grouped by 2 and by 4, that is, all bytes at
// places 0, 2, 4 … before those at 1, 3, 5 … (read, not written yet); from 128 on kept for encryption. A decoded frame is at most 16 MiB.
//
// The directory has the nonce, then 52 bytes for each frame: kind u8, codec u8, 0 u16, offset u32, stored bytes u32, decoded bytes u32, 0 u32,
// hash of the decoded bytes. Kinds: 1 chunk of a file, or a file of its own; 2 group of small files; 3 tree; 4 recipe; 5 note; 6 metrics; 7 output.
//
//	entry: 02 00 00 00 18 00 00 00 22 00 00 00 21 00 00 00 00 00 00 00 01 ef 0d 3c b8 44
//	entry: d0 1e 4b 5b d7 f3 8b ce 59 59 cc e5 35 9a a1 7c f2 e6 e2 97 e3 18 ed 42 f2 27
//
// The trailer has the directory's offset u32, stored bytes u32, decoded bytes u32, the number of frames u32, 16 zeros and "RPLEND1\n":
//
//	trailer: 4c 03 20 00 53 01 00 00 48 01 00 00 06 00 00 00 00 00 00 00 00 00 00 00 00 00
//	trailer: 00 00 00 00 00 00 52 50 4c 45 4e 44 31 0a
//
// The pack's name is the hash of the decoded directory. So it commits to every frame, one frame can be read and verified alone, and the nonce makes every name new: a pack
// that gc deleted never comes back under its name. A pack with a tree has the tree as the last frame but one, and last a note, which is the record without
// tree, packs and before, so that packs alone still tell what they are:
//
//	{"commit":"3be0c21d4f5061728394a5b6c7d8e9fa","experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","seq":0,
//	"time":"2026-03-04T05:06:07.123456789Z","step":8,"metrics":{"loss":0.3,"accuracy":1.0},"files":5,"bytes":2097185,
//	"added":2097152}
//
// # Trees
//
// A tree is everything a commit holds, whole: there is no chain to follow. It is JSON lines in one frame, or in several of at most 8 MiB, cut at
// line ends. Paths are sorted by their bytes with "/" lowest, so a directory is followed by all that is in it, and every directory has its line. No line is longer
// than 64 KiB, but for the first one.
//
//	{"tree":1,"packs":[""],"files":5,"bytes":2097185}
//	{"p":"ckpt","k":"d","m":"0755","t":1772600767123456789}
//	{"p":"ckpt/latest","k":"l","m":"0777","t":1772600767123456789,"to":"weights.bin"}
//	{"p":"ckpt/weights.bin","m":"0644","s":2097152,"t":1772600767123456789,
//	"h":"29bc0702a33041c4f6677005e8bc56d3b3200befd7b8638d592dd738b1c5f335","at":[[0,58,1084067,1084066,
//	"0349e2b92df1e8902fe2bc8dc84dc1cac0de4d622208f49ae4278b3d86ae998b"],[0,1084125,302977,302976,
//	"a602eb417e805e2c548b7c620a9cfa0c687f5742e8f03112d155e0ead2214961"],[0,1387102,710111,710110,
//	"b2be7e66940d9c8c64367e3d212e5e877e18a4c6992c9279807adb9910be9c72"]]}
//	{"p":"empty","m":"0644","s":0,"t":1772600767123456789,"h":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}
//	{"b":"bm90ZXMt/y50eHQ=","m":"0644","s":16,"t":1772600767123456789,
//	"h":"193ad60b573cc967cd72eb00f8fb37b054ee417740be842874d5b43577ea8b87","at":[[0,24,34,33,17]]}
//	{"p":"train.py","m":"0644","s":17,"t":1772600767123456789,
//	"h":"407acf0a1c3ead81fd828a19a70cff696a687d673b443969c098d1f5d5657a2c","at":[[0,24,34,33]]}
//
// The first line lists the packs; "at" and "r" number them from 0. Keys: p path, or b, its base64 if it is not UTF-8; k kind: d directory, l link, none for a file; m permission
// bits; s size; t mtime in nanoseconds since 1970; h hash of the content; to target of a link, or tb, its base64; torn, if the file kept changing while it was read.
//
// An "at" of one element, [pack, offset, stored, decoded, from], says that the file is the s bytes from that place in the decoded frame, from the start if from is left out;
// they are verified against h. With 2 to 8 elements the file is whole frames, each with its hash last. A file of more has
// "r":[pack, offset, stored, decoded, hash], which is a frame with its recipe. An empty file has neither.
//
// # Recipes
//
// A recipe is the number of packs u16, their names of 32 bytes each, then for every chunk 48 bytes: pack u16, 0 u16, offset u32, stored u32, decoded u32, hash.
// It has packs of its own, as trees share it while the file does not change.
//
// # The pack a frame lies in
//
// A tree or recipe often refers to frames of the pack that it is written to. It cannot hold that pack's name, which commits to its bytes. So the
// name "" in the list of a tree, and 32 zero bytes in that of a recipe, stand for the pack in which the recipe, or the first frame of the tree, lies. Whoever copies such a frame
// into another pack must write it anew. In memory every place carries its pack's name; the zero Hash stands for the pack in the making.
//
// # Chunks
//
// A file of 1 MiB or more is cut where its content says so: after a byte where the gear hash of the 64 bytes up to it is below a limit, never before
// 256 KiB, more readily from 1 MiB on, always at 4 MiB. The hash is h<<1 + T[byte], T[b] the first 8 bytes of the BLAKE3 of "gear1" and the byte b. Chunks also
// begin where tensors of at least 64 KiB begin and end, in .safetensors files and ZIP archives (.pt, .pth, .npz, .zip). A smaller file is one frame; those up to 64 KiB
// share one, 256 KiB together, so that neighbours come with one read.
//
// # Streams
//
// Each process that records an experiment is a writer of two streams: metrics, in which a position is a line, and output, in which it is a byte. A line is
// [step, ms since 1970, metrics] and, if it was a commit, its id:
//
//	[7,1772600767123,{"loss":0.31}]
//	[8,1772600768123,{"loss":0.3,"accuracy":1.0},"3be0c21d4f5061728394a5b6c7d8e9fa"]
//
// What stands at a position never changes, so any rows that cover a range give the same content. A row supersedes another of its writer and stream
// if its range contains the other's; of equal ranges that whose line has the smaller hash. "summary" has for each metric of the stretch [step, position, value] of the first and
// last point by (step, position) and of the smallest and largest number.
//
// # Segments
//
// A segment is records sorted for reading, as zstd frames of at most 64 KiB of lines each. `zstdcat` prints it.
//
//	first   a skippable frame: "RPLSEG1\n", stored bytes of the head u32, offset of the last frame u32, stored and decoded bytes of the directory u32 u32,
//	        hash of the stored head, hash of the decoded directory
//	head    experiment, set and delete records by id, and for each experiment a digest of its commits; kinds that the writer does not know
//	body    commits by (experiment, seq, id), then stream rows by (experiment, stream, writer, from)
//	names   for each commit, by id, ["3be0c21d4f50","9f0c1d2e3f40"]: the first 12 digits of its id and of its experiment's
//	last    a skippable frame: the directory as zstd: a line with version and the keys of the inputs, then for each block a line with kind, off,
//	        stored, raw, first and last experiment (in names: first and last commit), hash
//
// Digests and names are in segments of more than 1 MiB, whose directory says "digests":true in its first line. The head of such a segment is all that a list of experiments needs: every experiment with
// something in the body has a digest. The rows of one experiment are a few blocks then, and are read when somebody asks for them; so is the block of
// names in which the beginning of a commit's id must stand.
//
//	{"digest":"9f0c1d2e3f405162738495a6b7c8d9ea","commits":1,"seqs":[0,0],"before":[1772604367123456789,1772604367123456789],
//	"latest":{"commit":"3be0c21d4f5061728394a5b6c7d8e9fa","experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","seq":0,
//	"time":"2026-03-04T05:06:07.123456789Z","step":8,"metrics":{"loss":0.3,"accuracy":1.0},"files":5,"bytes":2097185,"added":2097152},
//	"best_is_latest":true,"of":[["3be0c21d4f5061728394a5b6c7d8e9fa",0,1772600767123456789,8]],
//	"metrics":{"accuracy":[[1.0,0],[1.0,0],[1.0,0],[1.0,0]],"loss":[[0.3,0],[0.3,0],[0.3,0],[0.3,0]]},
//	"writers":[["5c0de1f2a3b4c5d6",1,0,8],["5c0de1f2a3b4c5d6",0,0,7]],
//	"streams":{"accuracy":[[1.0,0],[1.0,0],[1.0,0],[1.0,0]],"loss":[[0.31,1],[0.3,0],[0.3,0],[0.31,1]]}}
//
// A digest is made of the rows of its own segment, the newest of each commit, and of no deletion. It has the number of commits, the lowest and the highest
// seq and "before" (in nanoseconds), the latest commit, and the best if the experiment's row is in the segment and names a metric ("best", unless it is the
// latest). "of" lists [commit, seq, time, step] and "writers" [writer, position, 0, step]; then each metric has its first, last, lowest and highest value with
// a place in the list. Digests of one experiment add up if their ranges of seq do not meet; else, and where a deletion kills some of what
// is digested, the rows must be read.
//
// A segment holds what its inputs said, but for what nobody needs: rows that a deletion in it killed more than a week before, stretches of
// streams that another one in it supersedes, late rows that never can be believed. Inputs are of one generation, and what is made of them is of the
// next one, up to 9. Whoever has read all inputs need not read the segment; whoever has read the segment need not read its inputs, unless
// the first line of the directory says "part":true: then other segments hold the rest of them.
//
// # Garbage collection
//
// Packs that no living row names are deleted in steps that anybody may take, at any time, twice: the lists in gc/ are all there is to know.
// A list is zstd of a line of JSON, then one pack name a line. The first line is {} of a condemned list, for which the time of the object says when
// that was; that of a sentence says when its packs were condemned:
//
//	{"condemned":"2026-03-04T05:06:07.123456789Z"}
//
// A pack that is in a condemned list, or in a valid sentence, is doomed: who publishes a row stores what it needs of it again. A
// condemned list lapses 24 h + 6 h after its time, and may be deleted an hour later; a sentence that landed later than 30 h after the time in it is void. Names of
// condemned lists begin with 0 to 7, those of sentences with 8 to f, so that a listing in which a list is gone already shows what became of it.
// See gc.go for the steps, and why nothing is lost.
//
// # Outbox
//
// On a local storage a writer puts packs and records itself, before it answers. For any other storage it puts them into an outbox, a folder of
// the project, and an uploader, one process per outbox, does the rest:
//
//	lock, status             locked while an uploader works; what it says
//	storage.json             {"storage":"s3://bucket","root":"/project"}
//	pack/<64 hex>            complete packs that are not sent
//	ready/<20 digits>-<id>   records of one flush of an experiment, in order; rows without "before", sets with "at" 1970
//	w/<id>-<writer>/         the streams of a writer, its heartbeat, and its end, once it has one
//	head/<id>                where an experiment that goes on stands: its record, its newest commit
//	sending                  {"ready":[…],"before":…} and then the log object that is on its way
//
// The folder is named by the first 128 bits of the hash of the storage's URL: the id of the repository cannot be known before the storage
// was reached once, and what was recorded for a URL goes there.
//
// A commit is safe once its ready file has its name, which comes after its packs, all of it synced. The uploader takes ready files in order, puts
// their packs, checks all packs they need, gives rows and sets their times, writes the file sending, and puts the log object. An uploader that
// finds such a file asks whether that object landed in time: then its ready files are done. Else they are sent with new times,
// which makes rows of the same ids. Only then packs and ready files go.
//
// If a pack that a row needs is condemned or gone, the files in it are stored again, from the project, from other packs, or from the pack itself as
// long as it is there, and the row gets a new tree. Files found nowhere are named in the row: "lost":["a/b"].
//
// # Invariants
//
// What must hold, or data is lost:
//
//   - an object is complete before it has its key, and a name is never used for something else
//   - a record lands only after all packs it names, and it names every pack that anything below it refers to
//   - a pack's frames lie one behind the other between head and directory, and its directory lists them all
//   - an object is deleted only by who put a superset of it and read that back, or by a valid sentence
//
// What should hold, and is repaired or shown where it does not: packs end at file boundaries, a tree's counts are right, a segment's inputs are gone, no pack is
// unreferenced, heartbeats belong to living experiments.
//
// Readers allocate nothing on the word of bytes that were not verified, beyond these limits: frame 16 MiB, record 4 MiB, pack and segment 64 MiB.
package repository
