package view

// A kind is one of the files and directories that every experiment has, or one of the tables in the root. The numbers are
// part of node ids and of directory cookies.
type kind uint8

const (
	experimentKind kind = iota // of dirOf: the directory of the experiment
	commitsKind                // of dirOf: its commits/
)

// Files of an experiment, in the order of its listing.
const (
	experimentJSON kind = 1 + iota
	paramsJSON
	summaryJSON
	metricsCSV
	metricsSVG
	commitsCSV
	outputLog
	requirementsTXT
	environmentJSON
	gitJSON
	diffPatch
	latestLink
	bestLink
	commitsEntry
)

// Tables in the root.
const (
	experimentsCSV kind = 1 + iota
	experimentsJSONL
)
