package recorder

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/replicate/replicate"
)

// masked stands where a secret was.
const masked = "(masked)"

// minWeak is how long a text must be to be a secret under a name like "token", which names harmless things too.
const minWeak = 16

// secrecy says what a name lets one expect of its text.
type secrecy int

const (
	harmless secrecy = iota
	suspect          // token, key, auth: a secret if the text is long and has no spaces
	secret           // password, secret, api key: always
)

var (
	secretWords = []string{"password", "passwd", "passphrase", "secret", "apikey", "credential", "credentials"}
	secretPairs = []string{"api key", "access key", "private key"}
	weakWords   = []string{"token", "key", "auth"}
)

// secrecyOf judges a name by its words. A weak word counts only at the end: "hf_token" is a token, "token_file" and
// "auth_method" are not.
func secrecyOf(name string) secrecy {
	words := splitName(name)
	for i, word := range words {
		if slices.Contains(secretWords, word) || i > 0 && slices.Contains(secretPairs, words[i-1]+" "+word) {
			return secret
		}
	}
	if n := len(words); n > 0 && slices.Contains(weakWords, words[n-1]) {
		return suspect
	}
	return harmless
}

// splitName splits a name at everything that is no letter, and at capitals: "AWSSecretKey2" is aws, secret, key.
func splitName(name string) []string {
	var words []string
	runes := []rune(name)
	start := 0
	cut := func(end int) {
		if end > start {
			words = append(words, strings.ToLower(string(runes[start:end])))
		}
	}
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r):
			cut(i)
			start = i + 1
		case i > start && unicode.IsUpper(r) &&
			(unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])):
			cut(i)
			start = i
		}
	}
	cut(len(runes))
	return words
}

// maskText returns what may be stored of a text under a name of the given secrecy.
func maskText(s secrecy, text string) string {
	switch {
	case text == "":
		return text
	case s == secret, s == suspect && len(text) >= minWeak && !strings.ContainsFunc(text, unicode.IsSpace):
		return masked
	}
	return maskShapes(text)
}

// shapes are the secrets that are known by their look, wherever they stand.
var shapes = regexp.MustCompile(strings.Join([]string{
	`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`,                                                    // AWS
	`\bAIza[0-9A-Za-z_-]{35}`,                                                          // Google
	`\bya29\.[0-9A-Za-z_-]{20,}`,                                                       // Google, short-lived
	`\bgh[pousr]_[0-9A-Za-z]{36,}`,                                                     // GitHub
	`\bgithub_pat_[0-9A-Za-z_]{22,}`,                                                   // GitHub
	`\bglpat-[0-9A-Za-z_-]{20,}`,                                                       // GitLab
	`\bhf_[0-9A-Za-z]{30,}`,                                                            // Hugging Face
	`\bsk-[0-9A-Za-z_-]*[0-9A-Za-z]{20,}[0-9A-Za-z_-]*`,                                // OpenAI, Anthropic
	`\bxox[abeoprs]-[0-9A-Za-z-]{10,}`,                                                 // Slack
	`\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[\w-]*`,                           // JSON web token
	`(?i:\bbearer\s+)[0-9A-Za-z._~+/-]{16,}=*`,                                         // HTTP header
	`(?s:-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$))`, // PEM
}, "|"))

var (
	urlPassword = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@`)
	urlQuery    = regexp.MustCompile(`([?&])([\w.-]+)=([^&#\s]+)`)
)

// maskShapes replaces the secrets inside a text and leaves the rest.
func maskShapes(text string) string {
	text = shapes.ReplaceAllString(text, masked)
	if !strings.Contains(text, "://") {
		return text
	}
	text = urlPassword.ReplaceAllString(text, "${1}"+masked+"@")
	return urlQuery.ReplaceAllStringFunc(text, func(pair string) string {
		name, value, _ := strings.Cut(pair, "=")
		return name + "=" + maskText(secrecyOf(name), value)
	})
}

// maskValues returns params as they may be stored: texts that look secret, by their own name, by the name of a map or a
// list around them or by their shape, become "(masked)". Numbers, bools and null stay.
func maskValues(params replicate.Values) replicate.Values {
	return maskMembers(harmless, params)
}

func maskMembers(around secrecy, members replicate.Values) replicate.Values {
	out := make(replicate.Values, len(members))
	for i, m := range members {
		out[i] = replicate.Member{Name: m.Name, Value: maskValue(max(around, secrecyOf(m.Name)), m.Value)}
	}
	return out
}

func maskValue(s secrecy, v replicate.Value) replicate.Value {
	switch v.Kind() {
	case replicate.TextKind:
		return replicate.Text(maskText(s, v.Text()))
	case replicate.MapKind:
		return replicate.Map(maskMembers(s, v.Map()))
	case replicate.ListKind:
		out := make([]replicate.Value, len(v.List()))
		for i, e := range v.List() {
			out[i] = maskValue(s, e)
		}
		return replicate.List(out)
	}
	return v
}

// SecretArg returns the number of the first argument of a command that looks like a secret, -1 if there is none. Whoever lists the processes of a machine
// reads it.
func SecretArg(args []string) int {
	for i, masked := range maskArgs(args) {
		if masked != args[i] {
			return i
		}
	}
	return -1
}

// Masked returns a command line as it may be shown.
func Masked(args []string) []string { return maskArgs(args) }

// maskArgs returns a command line as it may be stored. The name of an argument is what stands before "=", else the flag
// before it: --api-key=K, --api-key K, model.api_key=K.
func maskArgs(args []string) []string {
	out := make([]string, len(args))
	flag := harmless // of the flag before, which may take this argument as its value
	for i, arg := range args {
		isFlag := len(arg) > 1 && arg[0] == '-'
		name, value, joined := strings.Cut(arg, "=")
		switch {
		case joined && !strings.ContainsFunc(name, unicode.IsSpace):
			out[i] = name + "=" + maskText(secrecyOf(name), value)
			flag = harmless
		case isFlag:
			out[i] = maskShapes(arg)
			flag = secrecyOf(arg)
		default:
			out[i] = maskText(flag, arg)
			flag = harmless
		}
	}
	return out
}
