package s3

import (
	"cmp"
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/replicate/replicate/storage"
)

// bulk is how many keys one request deletes at most.
const bulk = 1000

// Batch is how many keys one request deletes.
func (s *Store) Batch() int { return bulk }

// Delete removes objects, many with one request.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return s.failed("delete", "", err)
	}
	for _, key := range keys {
		if err := storage.CheckKey(key); err != nil {
			return s.failed("delete", key, err)
		}
	}
	for some := range slices.Chunk(keys, bulk) {
		remove := s.deleteMany
		if len(some) == 1 {
			remove = s.deleteEach
		}
		if err := remove(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) deleteMany(ctx context.Context, keys []string) error {
	list := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		list[i].Key = s.name(key)
	}
	in := &awss3.DeleteObjectsInput{Bucket: &s.bucket.Name, Delete: &types.Delete{Objects: list, Quiet: aws.Bool(true)}}
	out, err := call(ctx, s, (*awss3.Client).DeleteObjects, in, withMD5)
	switch code := codeOf(err); {
	case code == "NotImplemented" || code == "MethodNotAllowed":
		return s.deleteEach(ctx, keys)
	case err != nil:
		return s.failed("delete", keys[0], err)
	}
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); !missing[code] {
			key, _ := s.bucket.Listed(aws.ToString(e.Key), "")
			return s.failed("delete", key, &smithy.GenericAPIError{Code: code, Message: aws.ToString(e.Message)})
		}
	}
	return nil
}

// deleteEach is for one key, and for servers that know nothing else.
func (s *Store) deleteEach(ctx context.Context, keys []string) error {
	for _, key := range keys {
		_, err := call(ctx, s, (*awss3.Client).DeleteObject, &awss3.DeleteObjectInput{Bucket: &s.bucket.Name, Key: s.name(key)})
		if err != nil && !missing[codeOf(err)] {
			return s.failed("delete", key, cmp.Or(ctx.Err(), err))
		}
	}
	return nil
}

// withMD5 sends a Content-MD5, which some servers insist on, in place of a CRC32, which some do not know.
func withMD5(o *awss3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		if _, err := stack.Initialize.Remove("AWSChecksum:SetupInputContext"); err != nil {
			return err
		}
		return smithyhttp.AddContentChecksumMiddleware(stack)
	})
}
