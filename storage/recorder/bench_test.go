package recorder

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkLog is the recorder's side of log(): lines of a pipe, four metrics each, until they are in the stream's file. The bar
// is 100,000 points a second.
func BenchmarkLog(b *testing.B) {
	r := start(b, newProject(b))
	r.init(nil)
	var lines bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&lines, `{"op":"log","step":%d,"time":1795428902.125,"metrics":{"train/loss":0.3125,"train/acc":0.%d,"lr":1e-05,"epoch":3}}`+"\n", i, i)
	}
	b.ResetTimer()
	for n := b.N; n > 0; n -= 1000 {
		block := lines.Bytes()
		if n < 1000 {
			block = bytes.Join(bytes.SplitAfterN(block, []byte("\n"), n+1)[:n], nil)
		}
		if _, err := r.to.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	r.call("set", nil)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "points/s")
	r.call("end", nil)
	r.close()
}

// BenchmarkCommit is one commit of an unchanged project, from call to answer.
func BenchmarkCommit(b *testing.B) {
	r := start(b, newProject(b))
	r.init(nil)
	for b.Loop() {
		r.call("commit", nil)
	}
	r.call("end", nil)
	r.close()
}

func BenchmarkMaskValues(b *testing.B) {
	r, err := parseRequest([]byte(`{"params":{"learning_rate":0.1,"optimizer":{"name":"adamw","betas":[0.9,0.999]},"dataset":"/data/imagenet/train","tokenizer":"bert-base-uncased","url":"https://example.org/x?y=z"}}`))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		maskValues(r.Params)
	}
}
