package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/wire"
)

const (
	statusMissing   = http.StatusNotFound
	statusForbidden = http.StatusForbidden
	statusRange     = http.StatusRequestedRangeNotSatisfiable
)

var (
	errNoDate   = errors.New("the server's answer has no date")
	errReplaced = errors.New("the object was replaced while it was read")
)

// permissions are the names of what IAM allows, by our operations.
var permissions = map[string]string{
	"get": "s3:GetObject", "stat": "s3:GetObject", "put": "s3:PutObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
	"create": "s3:CreateBucket", "read the clock of": "s3:GetObject",
}

// identity is in what the SDK says when it has no credentials to sign with.
const identity = "get identity:"

// missing are the codes of an object that is not there.
var missing = map[string]bool{"NoSuchKey": true, "NotFound": true, "NoSuchVersion": true}

// An explanation is what a code of an error means to people.
type explanation struct {
	kind replicate.Kind
	text string
	hint string
}

const (
	hintKeys = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile: aws sts get-caller-identity shows who you are"
	hintNew  = "sign in again: aws sso login, or put new keys into the environment or the profile"
	hintRoom = "make room there or have the quota raised; commits stay on this machine until then"
)

var explanations = map[string]explanation{
	"XAdminUserNotFound":    {replicate.Permission, "the server does not know this access key", hintKeys}, // versitygw, with status 404
	"InvalidAccessKeyId":    {replicate.Permission, "the server does not know this access key", hintKeys},
	"SignatureDoesNotMatch": {replicate.Permission, "the secret key is wrong", hintKeys},
	"AuthorizationHeaderMalformed": {replicate.Permission, "the server does not accept the signature for this region",
		"set AWS_REGION to the region of the bucket"},
	"ExpiredToken":                   {replicate.Permission, "the credentials have expired", hintNew},
	"ExpiredTokenException":          {replicate.Permission, "the credentials have expired", hintNew},
	"TokenRefreshRequired":           {replicate.Permission, "the credentials have expired", hintNew},
	"InvalidToken":                   {replicate.Permission, "the session token is wrong", hintNew},
	"InvalidClientTokenId":           {replicate.Permission, "the server does not know these credentials", hintKeys},
	"QuotaExceeded":                  {replicate.Full, "the quota is used up", hintRoom},
	"InsufficientStorage":            {replicate.Full, "the storage is full", hintRoom},
	"XMinioStorageFull":              {replicate.Full, "the storage is full", hintRoom},
	"XMinioAdminBucketQuotaExceeded": {replicate.Full, "the quota of the bucket is used up", hintRoom},
	"TooManyBuckets":                 {replicate.Full, "this account has as many buckets as it may", "use a prefix in another bucket: s3://bucket/prefix"},
	"BucketAlreadyExists":            {replicate.Conflict, "the name belongs to a bucket of somebody else", "choose another name: names of buckets are shared by everybody"},
	"InvalidBucketName":              {replicate.Usage, "this is not a name of a bucket", "names have 3 to 63 lower-case letters, digits, dots and dashes"},
	"PreconditionFailed":             {replicate.Conflict, errReplaced.Error(), ""},
	"SlowDown":                       {replicate.Unavailable, "the server asks for fewer requests", ""},
	"BadDigest":                      {replicate.Unavailable, "the bytes were damaged on the way", ""},
	"InvalidDigest":                  {replicate.Unavailable, "the bytes were damaged on the way", ""},
	"XAmzContentSHA256Mismatch":      {replicate.Unavailable, "the bytes were damaged on the way", ""},
	"IncompleteBody":                 {replicate.Unavailable, "the upload broke off", ""},
	"RequestTimeout":                 {replicate.Unavailable, "the upload stood still for too long", ""},
}

// failed is the error of an operation on a key, "" for the bucket.
func (s *Store) failed(op, key string, err error) error {
	e := &replicate.Error{Op: op, Path: strings.TrimSuffix(s.bucket.URL()+"/"+key, "/"), Err: err}
	code := codeOf(err)
	x, known := explanations[code]
	switch {
	case code == "NoSuchBucket":
		e.Path, e.Kind, e.Err = s.bucket.BucketURL(), replicate.Usage, storage.ErrNoBucket
		e.Hint = "create it: replicate upload --create, or set storage in replicate.yaml to another one"
	case known:
		e.Kind, e.Err, e.Hint = x.kind, errors.New(x.text), x.hint
	case missing[code]:
		e.Kind, e.Err = replicate.NotFound, errors.New("no such object")
	case errors.Is(err, errReplaced):
		e.Kind = replicate.Conflict
	case status(err) == http.StatusOK:
		e.Kind, e.Err = replicate.Unavailable, errors.New("the answer broke off")
	case skewed(err):
		e.Kind, e.Err = replicate.Permission, fmt.Errorf("the clock of this machine is wrong%s", behind(err))
		e.Hint = "set it: timedatectl set-ntp true"
	case status(err) == statusForbidden:
		s.denied(e, op)
	case code != "" || status(err) != 0:
		e.Kind, e.Err = wire.StatusKind(status(err)), errors.New(words(err))
	default:
		e.Kind, e.Hint, e.Err = credentials(err)
	}
	return e
}

// denied says which permission is missing. S3 hides whether an object exists from those who may not list.
func (s *Store) denied(e *replicate.Error, op string) {
	permission, on := permissions[op], "arn:aws:s3:::"+s.bucket.Name
	if op != "list" && op != "create" {
		on += "/" + s.bucket.Prefix + "*"
	}
	e.Kind, e.Err = replicate.Permission, fmt.Errorf("permission denied: %s on %s", permission, on)
	e.Hint = "allow it to the user or role that aws sts get-caller-identity shows, by the policy in docs/storage.md: aws iam put-user-policy, or put-role-policy"
	if op == "get" || op == "stat" {
		e.Hint = "allow it and s3:ListBucket, without which a missing object looks the same, to the user or role that aws sts get-caller-identity" +
			" shows, by the policy in docs/storage.md: aws iam put-user-policy, or put-role-policy"
	}
}

// credentials explains errors that no server of S3 sent: of the network, and of those who hand out credentials.
func credentials(err error) (kind replicate.Kind, hint string, cause error) {
	text := err.Error()
	found := strings.Contains(text, identity)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return replicate.KindOf(err), "", err
	case found && strings.Contains(text, "IMDS"):
		return replicate.Permission, "run aws configure, or aws configure sso, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", errors.New("no credentials found")
	case wire.NetworkKind(err) == replicate.Unavailable:
		return replicate.Unavailable, "check the network, and AWS_ENDPOINT_URL if it is set", wire.Cause(err)
	case found:
		return replicate.Permission, hintNew, fmt.Errorf("credentials: %s", words(err))
	case strings.Contains(text, "config profile"):
		return replicate.Usage, "check AWS_PROFILE: aws configure list-profiles shows those that are there", errors.New(words(err))
	}
	return replicate.KindOf(err), "", err
}

// wantsMD5 reports whether a body was refused because its MD5 was not sent. InvalidRequest says so in its text alone.
func wantsMD5(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Content-MD5") // failed keeps the words
}

// words returns the last part of an error, without what the SDK puts before it.
func words(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return strings.TrimSuffix(cmp.Or(api.ErrorMessage(), api.ErrorCode()), ".")
	}
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return cmp.Or(strings.ToLower(http.StatusText(answer.HTTPStatusCode())), err.Error())
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// codeOf returns the server's name of an error, "" if it has none.
func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// status returns the HTTP status of an error, 0 if it is none of a server. Errors within an answer count by their codes.
func status(err error) int {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	switch codeOf(err) {
	case "AccessDenied":
		return statusForbidden
	case "InternalError", "SlowDown", "ServiceUnavailable":
		return http.StatusServiceUnavailable
	}
	return 0
}

// outdated reports whether other credentials may help.
func outdated(err error) bool {
	x := explanations[codeOf(err)]
	return x.hint == hintKeys || x.hint == hintNew || err != nil && strings.Contains(err.Error(), identity)
}

// skewed reports whether the server refuses a request for its time.
func skewed(err error) bool {
	code := codeOf(err)
	return code == "RequestTimeTooSkewed" || code == "RequestExpired" || code == "RequestInTheFuture"
}

// behind says by how much the clock is wrong, as far as the answer tells.
func behind(err error) string {
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || answer.Response == nil {
		return ""
	}
	date, err := http.ParseTime(answer.Response.Header.Get("Date"))
	off := time.Since(date).Round(time.Second)
	switch {
	case err != nil || off.Abs() < time.Minute:
		return ""
	case off > 0:
		return fmt.Sprintf(": %s ahead of the server's", off)
	}
	return fmt.Sprintf(": %s behind the server's", -off)
}
