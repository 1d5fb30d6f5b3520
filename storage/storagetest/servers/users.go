package servers

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// UserKey and UserSecret are the keys of the user that AddUser makes.
const (
	UserKey    = "alice"
	UserSecret = "alice-secret"
)

// UserEnv is Env for a user who may do what Allow says.
func (s *Server) UserEnv() map[string]string {
	env := s.Env()
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = UserKey, UserSecret
	return env
}

// AddUser makes the user, who may do nothing. Only versitygw has users.
func (s *Server) AddUser() error {
	return s.admin("create-user", "--access", UserKey, "--secret", UserSecret, "--role", "user")
}

// RemoveUser makes the keys of the user invalid. AddUser makes them valid again.
func (s *Server) RemoveUser() error { return s.admin("delete-user", "--access", UserKey) }

func (s *Server) admin(args ...string) error {
	given := append([]string{"admin", "--access", AccessKey, "--secret", SecretKey, "--endpoint-url", s.Endpoint}, args...)
	if out, err := exec.Command(s.program, given...).CombinedOutput(); err != nil {
		return fmt.Errorf("versitygw %s: %w: %s", args[0], err, out)
	}
	return nil
}

// Allow lets the user do everything in the bucket but some actions, such as "s3:PutObject".
func (s *Server) Allow(but ...string) error {
	type statement struct {
		Effect    string
		Principal map[string]string
		Action    []string
		Resource  []string
	}
	who, where := map[string]string{"AWS": UserKey}, []string{"arn:aws:s3:::" + Bucket, "arn:aws:s3:::" + Bucket + "/*"}
	statements := []statement{{"Allow", who, []string{"s3:*"}, where}}
	for _, action := range but {
		of := where[1:]
		if strings.HasPrefix(action, "s3:List") {
			of = where[:1]
		}
		statements = append(statements, statement{"Deny", who, []string{action}, of})
	}
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		return err
	}
	return s.putSigned("/"+Bucket, "policy=", policy)
}

// putSigned sends a request of the owner with a signature of version 4.
func (s *Server) putSigned(path, query string, body []byte) error {
	r, err := http.NewRequest(http.MethodPut, s.Endpoint+path+"?"+query, bytes.NewReader(body))
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	at, day, digest := now.Format("20060102T150405Z"), now.Format("20060102"), hexHash(body)
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", digest)
	signed := "host;x-amz-content-sha256;x-amz-date"
	canonical := strings.Join([]string{r.Method, path, query, "host:" + r.URL.Host, "x-amz-content-sha256:" + digest, "x-amz-date:" + at, "", signed, digest}, "\n")
	scope := day + "/us-east-1/s3/aws4_request"
	key := []byte("AWS4" + SecretKey)
	for _, part := range strings.Split(scope, "/") {
		key = keyed(key, part)
	}
	signature := hex.EncodeToString(keyed(key, strings.Join([]string{"AWS4-HMAC-SHA256", at, scope, hexHash([]byte(canonical))}, "\n")))
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", AccessKey, scope, signed, signature))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("put %s?%s: %s: %s", path, query, answer.Status, text)
	}
	return nil
}

func keyed(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexHash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
