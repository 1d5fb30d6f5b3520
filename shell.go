package replicate

import "strings"

// CommandLine joins the arguments of a command to what a shell would take apart into them again. What means nothing to a shell stays as it is.
func CommandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		if arg == "" || strings.ContainsFunc(arg, meansSomething) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		quoted[i] = arg
	}
	return strings.Join(quoted, " ")
}

// meansSomething reports whether a character means something to a shell.
func meansSomething(r rune) bool {
	return r <= ' ' || strings.ContainsRune("\"'\\$`!*?[]{}()<>|&;~#", r)
}
