package s3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/replicate/replicate/storage/wire"
)

// defaultRegion is where a bucket is looked for first if nothing says where it is. Servers of one's own take any.
const defaultRegion = "us-east-1"

// byName are the ends of hosts whose servers want the bucket in the host's name. All others understand it in the path, and many nothing else.
var byName = []string{".amazonaws.com", ".amazonaws.com.cn", ".aliyuncs.com", ".myqcloud.com", ".volces.com"}

// A client makes the SDK's client when it is needed first.
type client struct {
	meter   wire.Meter
	spares  *wire.Spares
	withMD5 atomic.Bool // the bucket insists on an MD5 of every body

	mu     sync.Mutex // guards what follows
	sdk    *awss3.Client
	inside string // the bucket's region, "" while that of the configuration is believed
}

func newClient() *client {
	return &client{spares: &wire.Spares{Dial: (&net.Dialer{Timeout: wire.Connect}).DialContext}}
}

// get returns the SDK's client and what changes its options. What goes wrong is tried again by the next call.
func (c *client) get(ctx context.Context) (*awss3.Client, func(*awss3.Options), error) {
	c.mu.Lock()
	sdk, inside := c.sdk, c.inside
	c.mu.Unlock()
	if sdk == nil {
		made, err := c.make(ctx)
		if err != nil {
			return nil, nil, err
		}
		c.mu.Lock()
		if c.sdk == nil { // of several that made one, the first is kept
			c.sdk = made
		}
		sdk = c.sdk
		c.mu.Unlock()
	}
	return sdk, func(o *awss3.Options) {
		if inside != "" {
			o.Region = inside
		}
	}, nil
}

func (c *client) make(ctx context.Context) (*awss3.Client, error) {
	conns := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*wire.IdleConns, wire.IdleConns
		t.DialContext = c.spares.DialContext
	})
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(conns),
		config.WithLogger(logging.Nop{}),                                   // the last word is the error's
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // storage.Retry does it for every store
		// The default, CRC32 in trailers, is refused by R2, older MinIO and others.
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	)
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	return awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		o.HTTPClient = &metered{&c.meter, o.HTTPClient}
		o.UsePathStyle = o.UsePathStyle || o.BaseEndpoint != nil && pathStyle(*o.BaseEndpoint)
	}), nil
}

// pathStyle reports whether buckets are named in the path at an endpoint.
func pathStyle(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && !slices.ContainsFunc(byName, func(end string) bool { return strings.HasSuffix(u.Hostname(), end) })
}

// metered counts what the SDK's HTTP client does.
type metered struct {
	meter *wire.Meter
	next  awss3.HTTPClient
}

func (m *metered) Do(r *http.Request) (*http.Response, error) { return m.meter.Do(r, m.next.Do) }

// region is where a new bucket would be made, "" at an endpoint of one's own, which has no regions or knows best.
func (c *client) region(ctx context.Context) (string, error) {
	sdk, _, err := c.get(ctx)
	if err != nil {
		return "", err
	}
	if o := sdk.Options(); o.BaseEndpoint == nil {
		return o.Region, nil
	}
	return "", nil
}

// location says where a bucket is made. The default region must not be named.
func location(region string) *types.CreateBucketConfiguration {
	if region == "" || region == defaultRegion {
		return nil
	}
	return &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)}
}

// call carries out an operation: once more if the server named the bucket's region, or if the clock of this machine is wrong: the SDK has learnt
// by how much.
func call[In, Out any](ctx context.Context, s *Store, op func(*awss3.Client, context.Context, *In, ...func(*awss3.Options)) (*Out, error), in *In,
	more ...func(*awss3.Options)) (*Out, error) {
	for again := false; ; again = true {
		sdk, options, err := s.client.get(ctx)
		if err != nil {
			return nil, err
		}
		if put, ok := any(in).(*awss3.PutObjectInput); ok && again {
			if _, err := put.Body.(io.Seeker).Seek(0, io.SeekStart); err != nil {
				return nil, err
			}
		}
		out, err := op(sdk, ctx, in, append(more, options)...)
		if outdated(err) {
			s.client.forget(sdk)
		}
		if err == nil || again || !s.client.learn(err) && !skewed(err) {
			return out, err
		}
	}
}

// forget makes the next call look for credentials again: somebody may have signed in.
func (c *client) forget(sdk *awss3.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sdk == sdk {
		c.sdk = nil
	}
}

// learn takes the bucket's region from an error, and reports whether it was there and new.
func (c *client) learn(err error) bool {
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || answer.Response == nil {
		return false
	}
	if s := answer.HTTPStatusCode(); s != http.StatusMovedPermanently && s != http.StatusTemporaryRedirect && s != http.StatusBadRequest && s != http.StatusForbidden {
		return false
	}
	region := answer.Response.Header.Get("X-Amz-Bucket-Region")
	c.mu.Lock()
	defer c.mu.Unlock()
	if region == "" || region == c.inside {
		return false
	}
	c.inside = region
	return true
}
