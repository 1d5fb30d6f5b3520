package recorder

import (
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

// The corpus: name, then text. Texts are made up, shapes are real. They are put together here so that scanners for leaked
// secrets do not find them in the source.
var long = strings.Repeat("Ab3dE9x", 6)

var secretCorpus = [][2]string{
	{"password", "hunter2"}, {"db_password", "x"}, {"dbPassword", "x y"}, {"DB-PASSWD", "p"}, {"ssh.passphrase", "a b c"},
	{"secret", "s"}, {"client_secret", "abc"}, {"AWS_SECRET_ACCESS_KEY", "wJalr/XUtnFEMI"}, {"apikey", "k"},
	{"WANDB_API_KEY", "0123456789abcdef"}, {"apiKey", "k"}, {"APIKey", "k"}, {"x.api-key", "k"}, {"accessKey", "k"},
	{"access_key_id", "k"}, {"private_key", "k"}, {"privateKeyPath2", "k"}, {"credentials", "c"}, {"gcpCredential", "c"},
	{"token", "0123456789abcdef"}, {"hf_token", long}, {"HF_TOKEN", long}, {"accessToken", long}, {"auth", long},
	{"basicAuth", long}, {"encryption_key", long}, {"token2", long}, {"key", long},
	{"x", "AKIA" + "ABCDEFGHIJKLMNOP"}, {"x", "AIza" + long[:35]}, {"x", "ghp_" + long[:36]}, {"x", "github_pat_" + long},
	{"x", "hf_" + long[:34]}, {"x", "sk-" + long}, {"x", "sk-proj-" + long + "_a"}, {"x", "xoxb-" + long}, {"x", "glpat-" + long[:20]},
	{"note", "use " + "ghp_" + long[:36] + " for this"}, {"header", "Bearer " + long}, {"jwt", "eyJ" + long + ".eyJ" + long + "." + long},
	{"pem", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"}, {"pem", "-----BEGIN PRIVATE KEY-----\nMII"},
	{"db", "postgres://me:pa55@host/db"}, {"proxy", "http://:pw@proxy:3128"}, {"url", "https://h/x?a=1&token=" + long},
	{"url", "https://h/x?password=p"},
}

var harmlessCorpus = [][2]string{
	{"eos_token", "<|endoftext|>"}, {"pad_token", "[PAD]"}, {"max_tokens", "0123456789abcdefgh"}, {"tokenizer", "bert-base-uncased-whole-word"},
	{"author", "somebody with a long name"}, {"author", "AnneMarieVonHohenzollern"}, {"key_dim", "64-64-64-64-64-64-64"},
	{"key", "val_loss"}, {"monitor_key", "val/accuracy"}, {"sort_key", "by time, then name of run"}, {"keyboard", "qwertyuiopasdfghjkl"},
	{"monkey", "abcdefghijklmnopqrstuvw"}, {"token_type", "word-piece-with-a-long-name"}, {"auth_method", "oauth2-client-credentials"},
	{"key_padding_mask", "abcdefghijklmnopqrstuv"}, {"token_file", "/run/tokens/of/this/machine"}, {"secretary", "me"}, {"authors", long},
	{"compass", "north"}, {"pass", "2"}, {"bypass", "yes"}, {"api", "https://api.example.org/v1"}, {"url", "https://example.org/a?b=c&page=2"},
	{"repo", "git@github.com:org/name.git"}, {"repo", "ssh://git@host/x.git"}, {"commit", "4f2a9c14f2a9c14f2a9c14f2a9c14f2a9c14f2a9"},
	{"model", "sk-learn"}, {"task", "risk-assessment-of-some-length-here"}, {"ckpt", "hf_models/bert"}, {"optimizer", "adam"},
	{"path", "/data/AKIA/x"}, {"time", "10:00"}, {"dsn", "sqlite:///x.db"}, {"password", ""}, {"access", "key"}, {"tokens", long},
	{"cuda", "12.4"}, {"name", "akia"}, {"num_keys", "0123456789abcdef0123"},
}

func TestMaskCorpus(t *testing.T) {
	misses, alarms := 0, 0
	for _, c := range secretCorpus {
		if got := maskText(secrecyOf(c[0]), c[1]); !strings.Contains(got, masked) {
			t.Errorf("missed: %s = %q", c[0], c[1])
			misses++
		}
	}
	for _, c := range harmlessCorpus {
		if got := maskText(secrecyOf(c[0]), c[1]); got != c[1] {
			t.Errorf("false alarm: %s = %q became %q", c[0], c[1], got)
			alarms++
		}
	}
	t.Logf("%d of %d secrets missed, %d false alarms in %d harmless texts", misses, len(secretCorpus), alarms, len(harmlessCorpus))
}

func TestMaskLeavesTheRestOfAText(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"password of a URL", "postgres://me:pa55@host/db", "postgres://me:(masked)@host/db"},
		{"query of a URL", "see https://h/x?a=1&token=" + long + "&b=2", "see https://h/x?a=1&token=(masked)&b=2"},
		{"key in a sentence", "with hf_" + long[:34] + ", please", "with (masked), please"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := maskText(harmless, tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMaskValuesKeepsNumbersAndTypes(t *testing.T) {
	in := `{"password":1234,"api_key":null,"secret":true,"lr":0.1,"nested":{"credentials":{"user":"me","port":1},"key":[1,"` + long + `","short"]},"x":"NaN"}`
	want := `{"password":1234,"api_key":null,"secret":true,"lr":0.1,"nested":{"credentials":{"user":"(masked)","port":1},"key":[1,"(masked)","short"]},"x":"NaN"}`
	v, err := replicate.ParseValue([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(maskValues(v.Map()).AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(v.AppendJSON(nil)); got != in {
		t.Errorf("the input changed: %s", got)
	}
}

func TestMaskArgs(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "train.py --lr 0.1 --keys a", "train.py --lr 0.1 --keys a"},
		{"joined", "train.py --api-key=abc --lr=0.1", "train.py --api-key=(masked) --lr=0.1"},
		{"apart", "train.py --api-key abc x", "train.py --api-key (masked) x"},
		{"assigned", "train.py model.password=abc lr=0.1", "train.py model.password=(masked) lr=0.1"},
		{"short token stays", "train.py --token short --auth none", "train.py --token short --auth none"},
		{"flag behind a secret flag", "train.py --ask-password --lr 0.1", "train.py --ask-password --lr 0.1"},
		{"shape anywhere", "curl ghp_" + long[:36], "curl (masked)"},
		{"flag behind a token flag", "train.py --token --verbose-and-much-longer", "train.py --token --verbose-and-much-longer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(maskArgs(strings.Fields(tt.in)), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string][]string{
		"AWSSecretAccessKey": {"aws", "secret", "access", "key"},
		"hf_token":           {"hf", "token"},
		"--api-key2":         {"api", "key"},
		"APIKEY":             {"apikey"},
		"":                   nil,
		"ключAPI":            {"ключ", "api"},
	} {
		if got := splitName(name); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
