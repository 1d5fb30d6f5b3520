package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cloud.google.com/go/auth"
	gcs "cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/wire"
)

const (
	statusMissing   = http.StatusNotFound
	statusForbidden = http.StatusForbidden
	statusConflict  = http.StatusConflict
	statusRange     = http.StatusRequestedRangeNotSatisfiable
)

var (
	errNoDate      = errors.New("the server's answer has no date")
	errReplaced    = errors.New("the object was replaced while it was read")
	errCredentials = errors.New("no credentials can be used")
)

// permissions are the names of what IAM allows, by our operations.
var permissions = map[string]string{
	"get": "storage.objects.get", "stat": "storage.objects.get", "put": "storage.objects.create", "list": "storage.objects.list",
	"delete": "storage.objects.delete", "create": "storage.buckets.create", "read the clock of": "storage.objects.get",
}

const (
	hintLogin = "sign in: gcloud auth application-default login"
	hintRoom  = "have the quota raised, or make room; commits stay on this machine until then"
)

// failed is the error of an operation on a key, "" for the bucket.
func (s *Store) failed(op, key string, err error) *replicate.Error {
	e := &replicate.Error{Op: op, Path: strings.TrimSuffix(s.bucket.URL()+"/"+key, "/"), Err: err}
	reason := reasonOf(err)
	switch {
	case noBucket(err):
		e.Path, e.Kind, e.Err = s.bucket.BucketURL(), replicate.Usage, storage.ErrNoBucket
		e.Hint = "create it: replicate upload --create, or set storage in replicate.yaml to another one"
	case status(err) == statusMissing || errors.Is(err, gcs.ErrObjectNotExist):
		e.Kind, e.Err = replicate.NotFound, errors.New("no such object")
	case strings.Contains(reason, "ateLimitExceeded"): // rate…, userRate…
		e.Kind, e.Err = replicate.Unavailable, errors.New("the server asks for fewer requests")
	case strings.Contains(reason, "uotaExceeded"), status(err) == http.StatusInsufficientStorage:
		e.Kind, e.Err, e.Hint = replicate.Full, errors.New("the quota is used up"), hintRoom
	case status(err) == http.StatusPreconditionFailed:
		e.Kind, e.Err = replicate.Conflict, errReplaced
	case status(err) == statusConflict && op == "create":
		e.Kind, e.Err = replicate.Conflict, errors.New("the name belongs to a bucket of somebody else")
		e.Hint = "choose another name: names of buckets are shared by everybody"
	case status(err) == http.StatusUnauthorized:
		e.Kind, e.Err, e.Hint = replicate.Permission, errors.New("the credentials are wrong or have expired"), hintLogin
	case status(err) == statusForbidden:
		s.denied(e, op)
	case status(err) != 0:
		e.Kind, e.Err = wire.StatusKind(status(err)), errors.New(words(err))
	default:
		e.Kind, e.Hint, e.Err = credentialError(err)
	}
	return e
}

// denied says which permission is missing, to whom as far as the server tells, and how it is given.
func (s *Store) denied(e *replicate.Error, op string) {
	e.Kind = replicate.Permission
	text := words(e.Err)
	if strings.Contains(text, "billing") {
		e.Err, e.Hint = errors.New(text), "switch billing on for the project: https://console.cloud.google.com/billing"
		return
	}
	e.Err = fmt.Errorf("permission denied: %s on gs://%s", permissions[op], s.bucket.Name)
	member := "user:YOU"
	if who, _, ok := strings.Cut(text, " does not have "); ok && strings.Contains(who, "@") && !strings.Contains(who, " ") {
		member = "user:" + who
		if strings.HasSuffix(who, ".gserviceaccount.com") {
			member = "serviceAccount:" + who
		}
	}
	e.Hint = fmt.Sprintf("gcloud storage buckets add-iam-policy-binding gs://%s --member=%s --role=roles/storage.objectUser", s.bucket.Name, member)
	if op == "create" {
		e.Hint = "gcloud projects add-iam-policy-binding PROJECT --member=" + member + " --role=roles/storage.admin, or have somebody create the bucket"
	}
}

func (s *Store) noProject() error {
	return &replicate.Error{Op: "create", Path: s.bucket.BucketURL(), Kind: replicate.Usage, Err: errors.New("the credentials name no project"),
		Hint: "gcloud storage buckets create gs://" + s.bucket.Name + " --project=PROJECT"}
}

// credentialError explains errors that no server of GCS sent: of the network, and of those who hand out credentials.
func credentialError(err error) (kind replicate.Kind, hint string, cause error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return replicate.KindOf(err), "", err
	}
	if token, ok := errors.AsType[*auth.Error](err); ok {
		text := string(token.Body)
		switch {
		case token.Temporary():
			return replicate.Unavailable, "", errors.New("nobody hands out credentials just now")
		case strings.Contains(text, "reasonable timeframe"):
			return replicate.Permission, "set it: timedatectl set-ntp true", errors.New("the clock of this machine is wrong")
		}
		return replicate.Permission, hintLogin, errors.New("the credentials are wrong or have expired")
	}
	switch {
	case errors.Is(err, errCredentials):
		cause = wire.Cause(err)
		if strings.Contains(err.Error(), "could not find default credentials") { // and where to read on, in many words
			cause = errors.New("no credentials found")
		}
		return replicate.Permission, "sign in: gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a key", cause
	case wire.NetworkKind(err) == replicate.Unavailable:
		return replicate.Unavailable, "check the network, and STORAGE_EMULATOR_HOST if it is set", wire.Cause(err)
	}
	return replicate.KindOf(err), "", err
}

// noBucket reports whether an error says that the bucket is missing. For a missing object the library says the same as for an object of a
// missing bucket; the server does not.
func noBucket(err error) bool {
	if errors.Is(err, gcs.ErrBucketNotExist) {
		return true
	}
	answer := answerOf(err)
	return answer.Code == statusMissing && strings.Contains(answer.Message+answer.Body, "bucket does not exist")
}

// answerOf returns what a server said, zero if none did. For a read the library leaves it to others to look into the body.
func answerOf(err error) googleapi.Error {
	found, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return googleapi.Error{}
	}
	answer := *found
	if answer.Message == "" {
		var body struct {
			Error struct {
				Message string
				Errors  []googleapi.ErrorItem
			}
		}
		if json.Unmarshal([]byte(answer.Body), &body) == nil {
			answer.Message, answer.Errors = body.Error.Message, body.Error.Errors
		}
	}
	return answer
}

// words returns what the server said.
func words(err error) string {
	answer := answerOf(err)
	switch {
	case answer.Code == 0:
		return err.Error()
	case answer.Message != "":
		return strings.TrimSuffix(answer.Message, ".")
	}
	return strings.ToLower(http.StatusText(answer.Code))
}

// reasonOf returns the server's name of an error, "" if it has none.
func reasonOf(err error) string {
	if answer := answerOf(err); len(answer.Errors) > 0 {
		return answer.Errors[0].Reason
	}
	return ""
}

// status returns the HTTP status of an error, 0 if it is none of a server.
func status(err error) int { return answerOf(err).Code }
