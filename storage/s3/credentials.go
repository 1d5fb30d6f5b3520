package s3

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Credentials returns the keys that the SDK found here, the region and the endpoint, as variables that it reads elsewhere.
func (s *Store) Credentials(ctx context.Context) (map[string]string, error) {
	sdk, _, err := s.client.get(ctx)
	if err != nil {
		return nil, s.failed("find credentials for", "", err)
	}
	o := sdk.Options()
	found, err := o.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, s.failed("find credentials for", "", err)
	}
	variables := map[string]string{"AWS_ACCESS_KEY_ID": found.AccessKeyID, "AWS_SECRET_ACCESS_KEY": found.SecretAccessKey, "AWS_REGION": o.Region}
	if found.SessionToken != "" {
		variables["AWS_SESSION_TOKEN"] = found.SessionToken
	}
	if endpoint := aws.ToString(o.BaseEndpoint); endpoint != "" {
		variables["AWS_ENDPOINT_URL"] = endpoint
	}
	return variables, nil
}
