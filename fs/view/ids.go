package view

import "fmt"

// An ID is a node, and its inode number: 5 bits of class, 30 of ordinal, 28 of entry. 1 is the root; bit 63 is 0 for tools
// and protocols that read inode numbers as signed.
//
//	class         ordinal      entry
//	fixed         –            constant
//	rootFile      version      kind
//	dirOf         experiment   kind
//	fileOf        experiment   kind 4, version 24
//	growingOf     experiment   kind 4, epoch 8, columns 16
//	commitDir     commit       place in the tree, below experiments/
//	commitDirFlat commit       place in the tree, below commits/
//	commitFile    commit       place in the tree, shared by both appearances of the commit
//	contentFile   file         0: a large file is one node in every commit that holds it
//	commitJSON    commit       0
//	experimentLink, commitLink target  form 8, digits 8
//
// Ordinals are the index's: assigned once, never used again.
type ID uint64

// Root is the root of the tree.
const Root ID = 1

type class uint8

const (
	fixed class = iota
	rootFile
	dirOf
	fileOf
	growingOf
	commitDir
	commitDirFlat
	commitFile
	contentFile
	commitJSON
	experimentLink
	commitLink
	classes // how many there are
)

const (
	entryBits = 28
	ordBits   = 30
	maxEntry  = 1<<entryBits - 1
	maxOrd    = 1<<ordBits - 1
)

// Nodes of the class fixed.
const (
	entryRoot = 1 + iota
	entryExperiments
	entryCommits
	entryReadme
)

const (
	experimentsDir = ID(entryExperiments)
	commitsDir     = ID(entryCommits)
	readmeFile     = ID(entryReadme)
)

// newID packs an ID. A number that does not fit would name another node, so it panics: 2³⁰ experiments are a bug.
func newID(c class, ord, entry int64) ID {
	if ord < 0 || ord > maxOrd || entry < 0 || entry > maxEntry {
		panic(fmt.Sprintf("view: no node id for class %d, ordinal %d, entry %d", c, ord, entry))
	}
	return ID(c)<<(ordBits+entryBits) | ID(ord)<<entryBits | ID(entry)
}

func (id ID) class() class { return class(id >> (ordBits + entryBits)) }
func (id ID) ord() int64   { return int64(id >> entryBits & maxOrd) }
func (id ID) entry() int64 { return int64(id & maxEntry) }

const (
	versionBits = 24
	maxVersion  = 1<<versionBits - 1
	epochBits   = 8
	columnBits  = 16
	maxColumns  = 1<<columnBits - 1
)

// fileID is a version of a rendered file of an experiment. Versions are cut to 24 bits: a reader would have to keep a file
// open for 16 million changes to meet another one of the same number.
func fileID(experiment int64, k kind, version int64) ID {
	return newID(fileOf, experiment, int64(k)<<versionBits|version&maxVersion)
}

func (id ID) kind() kind     { return kind(id.entry() >> versionBits) }
func (id ID) version() int64 { return id.entry() & maxVersion }

// growingID is a growing file of an experiment. It is another node when its columns change, or when something comes to
// stand before its end (epoch).
func growingID(experiment int64, k kind, epoch uint8, columns int) ID {
	return newID(growingOf, experiment, int64(k)<<versionBits|int64(epoch)<<columnBits|int64(min(columns, maxColumns)))
}

func (id ID) epoch() uint8 { return uint8(id.entry() >> columnBits) }
func (id ID) columns() int { return int(id.entry() & maxColumns) }

// A form is the spelling of a link: from where it leads to its target.
type form int64

const (
	fromRoot       form = iota // experiments/<id7>
	besides                    // <id7>, in experiments/ or commits/; <step>-<id7> in an experiment's commits/
	fromExperiment             // commits/<step>-<id7>
	besidesStep                // <step>-<id7>, in an experiment's commits/
)

const digitBits = 8

// linkID is a link to an experiment or a commit whose name has so many digits of its id: a target that grows a digit is
// another link, so that its text never changes.
func linkID(c class, target int64, f form, digits int) ID {
	return newID(c, target, int64(f)<<digitBits|int64(digits))
}

func (id ID) form() form  { return form(id.entry() >> digitBits) }
func (id ID) digits() int { return int(id.entry() & (1<<digitBits - 1)) }

// Life is a property of the class.
func (id ID) Life() Life {
	switch id.class() {
	case commitDir, commitDirFlat, commitFile, contentFile, commitJSON:
		return Forever
	case growingOf:
		return Growing
	case dirOf:
		return Live
	case fixed:
		if id != readmeFile {
			return Live
		}
	}
	return Named
}
