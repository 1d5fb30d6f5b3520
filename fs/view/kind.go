package view

// A kind is one of the names that every experiment has, or one of the tables in the root. The numbers are part of node ids and
// of directory cookies.
type kind uint8

// Directories of an experiment.
const (
	experimentKind kind = iota // its own
	commitsKind                // its commits/
)

// Names in the directory of an experiment, in the order of its listing.
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
	latestName
	bestName
	commitsName
	lastName
)

var experimentNames = [lastName]string{
	experimentJSON: "experiment.json", paramsJSON: "params.json", summaryJSON: "summary.json", metricsCSV: "metrics.csv",
	metricsSVG: "metrics.svg", commitsCSV: "commits.csv", outputLog: "output.log", requirementsTXT: "requirements.txt",
	environmentJSON: "environment.json", gitJSON: "git.json", diffPatch: "diff.patch",
	latestName: "latest", bestName: "best", commitsName: "commits",
}

// Names in the root, in the order of its listing.
const (
	readmeName kind = 1 + iota
	experimentsCSV
	experimentsJSONL
	rootLatest
	rootExperiments
	rootCommits
	lastRoot
)

var rootNames = [lastRoot]string{
	readmeName: "README.txt", experimentsCSV: "experiments.csv", experimentsJSONL: "experiments.jsonl", rootLatest: "latest",
	rootExperiments: "experiments", rootCommits: "commits",
}

// kindOf returns the kind of a name, 0 if there is none.
func kindOf(names []string, name string) kind {
	for k := 1; k < len(names); k++ {
		if names[k] == name {
			return kind(k)
		}
	}
	return 0
}
