package remote_test

import (
	"encoding/json"
	"strings"
	"testing"
)

const train = `import replicate, sys
experiment = replicate.init(learning_rate=0.1)
for epoch in range(3):
    print("epoch", epoch, flush=True)
    open("model.txt", "w").write(f"weights {epoch}\n")
    experiment.commit(step=epoch, loss=1 / (epoch + 1))
print("done", file=sys.stderr)
`

func TestRunOnAnotherMachine(t *testing.T) {
	d := newDesk(t)
	d.write("train.py", train)
	o := d.try("run", "-H", "rh1", "train.py")
	if o.code != 0 || o.stdout != "epoch 0\nepoch 1\nepoch 2\n" || !strings.Contains(o.stderr, "done\n") {
		t.Fatalf("exit code %d\n%s\n%s", o.code, o.stdout, o.stderr)
	}
	var list []struct {
		ID, Status, Host, User string
		NumCommits             int `json:"num_commits"`
		Params                 map[string]any
	}
	if err := json.Unmarshal([]byte(d.replicate("ls", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Status != "finished" || list[0].NumCommits != 3 || list[0].Host != "rh1" || list[0].User != "ann" || list[0].Params["learning_rate"] != 0.1 {
		t.Errorf("ls says %+v", list)
	}
}
