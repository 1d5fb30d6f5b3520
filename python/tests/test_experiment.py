"""What a training script can say, with the real recorder and the real command line."""
import json
import math
import os
import subprocess
import sys
import unittest

import support
from replicate import values


class ExperimentTest(support.Lab):
    def test_a_run(self):
        """E1: parameters, three commits, command, ids, times."""
        self.run_script("""
import replicate
experiment = replicate.init(my_param="my-value")
for step in range(3):
    experiment.commit(step=step)
""", "--foo")
        e = self.only()
        self.assertEqual(e["params"], {"my_param": "my-value"})
        self.assertEqual((e["num_commits"], e["status"], e["running"]), (3, "finished", False))
        self.assertEqual(e["command"][-2:], ["train.py", "--foo"])
        self.assertRegex(e["id"], "^[0-9a-f]{32}$")
        self.assertEqual(e["latest_commit"]["step"], 2)
        self.assertLess(e["created"], e["latest_commit"]["created"])

    def test_two_lines_on_stderr(self):
        _, err = self.run_script("""
import replicate
experiment = replicate.init(metric=("loss", "min"))
experiment.commit(step=3, loss=0.25)
experiment.commit(step=4, loss=0.5)
""")
        first, second = err.splitlines()
        self.assertRegex(first, r"^replicate: experiment [0-9a-f]{7}, 2 files \(\d+ B\) saved")
        self.assertRegex(second, r"^replicate: [0-9a-f]{7} finished after \d+ s, 2 commits, best loss 0.25 at step 3$")

    def test_directory_with_spaces_and_letters(self):
        self.dir = os.path.join(self.top, "mein Projekt ü 实验")
        os.mkdir(self.dir)
        self.write("replicate.yaml", "")
        self.run_script("import replicate; replicate.init(x=1).commit(loss=1.0)")
        self.assertEqual(self.only()["params"], {"x": 1})

    def test_every_value_survives(self):
        """Python → storage → --json → Python."""
        given = {
            "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zero": -0.0, "one": 1.0, "int": 1, "big": 2 ** 53 + 1, "huge": -10 ** 400,
            "true": True, "null": None, "text": "a\nb\t\"ü\\ 🙂 <&>", "word": "NaN", "word2": "\\Infinity", "empty": "", "list": [1, [2.5, None], {}],
            "nested": {"a": {"b": [True]}}, "small": 5e-324, "float": 0.1 + 0.2, "e": 1e22, "dotted.name": 1, "UPPER": 2, "with space": 3, "x-desc": 4,
        }
        self.write("given.py", f"from math import nan, inf\ngiven = {given!r}")
        self.run_script("""
import replicate
from given import given
experiment = replicate.init(given)
assert repr(experiment.params) == repr(given), experiment.params
commit = experiment.commit(given)
print(repr(commit.metrics))
""")
        e = self.only()
        read = values.read(e["params"])
        self.assertEqual(repr(dict(sorted(read.items()))), repr(dict(sorted(given.items()))))
        metrics = values.read(e["latest_commit"]["metrics"])
        flat = dict(given, **{"nested/a/b": [True]})
        del flat["nested"]
        self.assertEqual(repr(dict(sorted(metrics.items()))), repr(dict(sorted(flat.items()))))

    def test_random_floats_survive(self):
        self.run_script("""
import random, struct, json, replicate
random.seed(1)
floats = [struct.unpack("<d", random.getrandbits(64).to_bytes(8, "little"))[0] for _ in range(20000)]
replicate.init({"floats": floats})
with open("floats.json", "w") as file:
    json.dump([repr(f) for f in floats], file)
""")
        self.assertEqual([repr(f) for f in values.read(self.only()["params"]["floats"])], json.loads(self.read("floats.json")))

    def test_positional_arguments(self):
        self.run_script("""
import replicate, pathlib
experiment = replicate.init(path=[])
experiment.commit(7, loss=1.0)
experiment.commit({"train/loss": 2.0, "step": 5})
with open("weights", "w") as f: f.write("w")
experiment.commit("weights", step=9)
experiment.commit(pathlib.Path("weights"), 10)
experiment.log(11, loss=0.5)
experiment.log({"train/loss": 0.1}, step=12)
""")
        e = self.only()
        self.assertEqual([(c["step"], c["metrics"]) for c in self.commits(e["id"])],
                         [(7, {"loss": 1.0}), (8, {"train/loss": 2.0, "step": 5}), (9, {}), (10, {})])
        self.assertEqual(e["metrics"]["train/loss"]["last"], 0.1)
        self.assertEqual(e["metrics"]["loss"]["min"], 0.5)

    def test_steps(self):
        """From 0, previous + 1, repeated and decreasing ones kept; anything else is told and taken as none."""
        out, err = self.run_script("""
import replicate
experiment = replicate.init()
class Index:
    def __index__(self): return 7
print([experiment.commit(step=step).step for step in (None, None, 5, 5, 2, None, Index(), 8.0, "no", 2.5)])
""")
        self.assertEqual(out, "[0, 1, 5, 5, 2, 3, 7, 8, 9, 10]\n")
        self.assertIn("warning: step 'no' is no whole number", err)
        self.assertIn("warning: step 2.5 is no whole number", err)
        self.assertEqual([c["step"] for c in self.commits(self.only()["id"])], [0, 1, 5, 5, 2, 3, 7, 8, 9, 10])

    def files(self, ref):
        """The names of the files of a commit."""
        out = os.path.join(self.top, "out-" + ref.replace("/", "_"))
        self.replicate("checkout", ref, "-o", out)
        return {os.path.relpath(os.path.join(where, name), out) for where, _, names in os.walk(out) for name in names
                if not os.path.relpath(where, out).startswith(".replicate")}

    def test_commit_of_a_path_carries_the_rest_over(self):
        out, _ = self.run_script("""
import os, replicate
def write(name, text):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as f: f.write(text)
write("data/a", "old")
experiment = replicate.init()
write("data/a", "new"); write("weights", "1")
print(experiment.commit(path="weights").id)
os.mkdir("sub"); os.chdir("sub")
print(experiment.commit(path="../data").id)
""")
        first, second = out.split()
        everything = {"replicate.yaml", "train.py", "data/a", "weights"}
        self.assertEqual(self.files(first), everything)
        self.assertEqual(self.files(second), everything)
        self.assertEqual(self.replicate("cat", f"{first}:data/a"), "old")
        self.assertEqual(self.replicate("cat", f"{second}:data/a"), "new")

    def test_init_path(self):
        """What init names is all that commits hold; [] is nothing, and a path of a commit then all there is."""
        self.write("a", "a")
        self.write("foo.txt", "foo")
        out, _ = self.run_script("""
import replicate
print(replicate.init(path=["a", "foo.txt"]).commit().id)
experiment = replicate.init(path=[])
print(experiment.commit(path="foo.txt").id)
""")
        both, one = out.split()
        self.assertEqual(self.files(both), {"a", "foo.txt"})
        self.assertEqual(self.files(one), {"foo.txt"})

    def test_outside_of_the_root(self):
        _, err = self.run_script("import replicate; e = replicate.init(); e.commit(path='/etc/hostname')")
        self.assertIn("warning: /etc/hostname is not saved: it is outside of " + self.dir, err)

    def test_name_tags_note_metric_parent(self):
        out, _ = self.run_script("""
import replicate
experiment = replicate.init(name="trial", tags=["a", "b"], metric=("acc", "maximize"))
commit = experiment.commit(acc=0.5)
experiment.commit(acc=0.25)
experiment.tag("paper", "c"); experiment.note("it works")
experiment.stop()
child = replicate.init(name="child", tags="solo", parent=commit)
print(commit.id, experiment.name, experiment.status)
""")
        id, name, status = out.split()
        self.assertEqual((name, status), ("trial", "finished"))
        child, trial = sorted(self.experiments(), key=lambda e: e["name"])
        self.assertEqual((trial["tags"], trial["note"]), (["a", "b", "c", "paper"], "it works"))
        self.assertEqual(trial["primary_metric"], {"name": "acc", "goal": "maximize"})
        self.assertEqual(trial["best_commit"]["id"], id)
        self.assertEqual((child["parent"], child["tags"]), (id, ["solo"]))

    def test_parent_is_the_checkout(self):
        self.run_script("import replicate; replicate.init().commit(step=1)")
        id = self.only()["latest_commit"]["id"]
        self.replicate("checkout", id, "-f")
        self.run_script("import replicate; replicate.init(second=True)")
        self.assertIn(id, [e["parent"] for e in self.experiments()])

    def test_resume(self):
        """By id in another process: the same experiment runs again and steps go on; True finds the one that failed."""
        out, _ = self.run_script("import replicate; e = replicate.init(lr=1); e.commit(step=2); print(e.id); raise SystemError", code=1)
        id = out.strip()
        self.assertEqual(self.only()["status"], "failed")
        out, err = self.run_script("""
import replicate
experiment = replicate.init(lr=1, resume=True)
print(experiment.id, experiment.commit().step, experiment.status)
""")
        self.assertEqual(out, f"{id} 3 running\n")
        self.assertIn(f"experiment {id[:7]} goes on", err)
        e = self.only()
        self.assertEqual((e["status"], e["num_commits"], e["latest_commit"]["step"]), ("finished", 2, 3))
        self.run_script(f"import replicate; replicate.init(resume={id[:9]!r}).commit()")
        self.assertEqual(self.only()["latest_commit"]["step"], 4)
        self.run_script("import replicate; replicate.init(resume=True)")  # none is left that did not finish
        self.assertEqual(len(self.experiments()), 2)
        _, err = self.run_script("import replicate; replicate.init(resume='nowhere')", code=1)
        self.assertIn("replicate.NotFound: ", err)

    def test_later_scripts_of_2020(self):
        _, err = self.run_script("""
import replicate
experiment = replicate.init(path=".", params={"lr": 0.1}, quiet=True, disable_heartbeat=True)
for step, loss in enumerate([3.0, 1.0, 2.0]):
    with open("weights", "w") as f: f.write(str(step))
    experiment.checkpoint(path="weights", step=step, metrics={"loss": loss}, primary_metric=("loss", "minimize"))
with open("weights", "w") as f: f.write("not saved")
experiment.checkpoint(step=3, metrics={"loss": 4.0}, primary_metric=("accuracy", "maximize"))
""")
        e = self.only()
        self.assertEqual((e["params"], e["num_commits"], e["best_commit"]["step"]), ({"lr": 0.1}, 4, 1))
        self.assertEqual(self.replicate("cat", e["latest_commit"]["id"] + ":weights"), "2")
        self.assertEqual(err.count("the primary metric stays loss"), 1)
        self.assertIn("best loss 1 at step 1", err)

    def test_scripts_of_2020(self):
        self.run_script("""
import replicate
experiment = replicate.init(learning_rate=0.01, num_epochs=2)
with open("weights", "w") as f: f.write("x")
for epoch in range(2):
    experiment.commit("weights", step=epoch, train_loss=0.5)
""")
        self.assertEqual(self.only()["latest_commit"]["metrics"], {"train_loss": 0.5})

    def test_with(self):
        self.run_script("""
import replicate
with replicate.init(n=1) as experiment:
    experiment.commit()
print(experiment.status)
experiment.commit(late=1)
""")
        self.assertEqual((self.only()["status"], self.only()["num_commits"]), ("finished", 1))

    def test_with_an_exception(self):
        out, err = self.run_script("""
import replicate
for problem in (ValueError("inside"), KeyboardInterrupt(), SystemExit(3), SystemExit(0), SystemExit("text")):
    try:
        with replicate.init() as experiment:
            raise problem
    except BaseException as caught:
        assert caught is problem
        print(experiment.status)
""")
        self.assertEqual(out.split(), ["failed", "interrupted", "failed", "finished", "failed"])
        ends = [(e["status"], e["exit_code"]) for e in self.experiments()]
        self.assertEqual(ends, [("failed", None), ("interrupted", None), ("failed", 3), ("finished", None), ("failed", 1)])
        shown = json.loads(self.replicate("show", self.experiments()[0]["id"], "--json"))
        self.assertIn("ValueError: inside", shown["error"]["traceback"])

    def test_a_second_init_ends_the_first(self):
        _, err = self.run_script("import replicate; a = replicate.init(n=1); b = replicate.init(n=2); a.log(x=1); b.commit()")
        self.assertEqual([(e["params"], e["status"], e["num_commits"]) for e in self.experiments()],
                         [({"n": 1}, "finished", 0), ({"n": 2}, "finished", 1)])
        self.assertIn("log after the end of experiment", err)

    def test_many_in_one_process(self):
        self.run_script("""
import os, replicate
for n in range(10):
    replicate.init(n=n).stop()
print(len([fd for fd in os.listdir("/proc/self/fd")]))
assert len(os.listdir("/proc/self/fd")) < 10
""")
        self.assertEqual(len(self.experiments()), 10)

    def test_bad_yaml(self):
        self.write("replicate.yaml", "metric: loss\n")
        _, err = self.run_script("import replicate; replicate.init()", code=1)
        self.assertRegex(err, r'replicate\.Error: .*replicate\.yaml:1: unknown key "metric"\nreplicate: hint: did you mean "metrics"\?')

    def test_bad_arguments(self):
        for call in ("metric='loss'", "metric=('loss', 'best')", "parent='zzz'"):
            with self.subTest(call):
                _, err = self.run_script(f"import replicate; replicate.init({call})", code=1)
                self.assertIn("replicate.", err.splitlines()[-2] + err.splitlines()[-1])

    def test_no_project_file(self):
        os.remove(self.path("replicate.yaml"))
        self.run_script("import replicate; replicate.init(n=1)")
        self.assertTrue(os.path.isdir(self.path(".replicate", "storage")))
        self.assertEqual(self.only()["params"], {"n": 1})

    def test_disabled(self):
        self.env["REPLICATE_DISABLE"] = "1"
        self.env["REPLICATE_BINARY"] = "/nowhere"
        out, err = self.run_script("""
import replicate
with replicate.init({"a": float("nan")}, name="x") as experiment:
    experiment.log(loss=1); commit = experiment.commit(step=4, loss=1)
    experiment.tag("a"); experiment.note("b"); experiment.checkpoint(step=1)
    print(repr(experiment.id), experiment.params, experiment.name, experiment.status, repr(commit.id), commit.step, commit.metrics)
""")
        self.assertEqual((out, err), ("'' {'a': nan} x disabled '' 4 {'loss': 1}\n", ""))

    def test_other_ranks_do_nothing(self):
        processes = []
        script = "import replicate; e = replicate.init(n=8); e.commit(loss=1.0); print(bool(e.id))"
        for rank in range(4):
            self.env.update(RANK=str(rank), WORLD_SIZE="4")
            processes.append(self.start(script))
        self.assertEqual([p.communicate()[0] for p in processes], ["True\n"] + ["False\n"] * 3)
        self.assertEqual(self.only()["num_commits"], 1)

    def test_wrapped(self):
        """Inside `replicate init -- command` it takes part in the experiment of the wrapper."""
        self.write("train.py", "import replicate; e = replicate.init(lr=0.1); e.commit(step=5, loss=1.0); print(e.id)")
        out = self.replicate("init", "batch=3", "--", sys.executable, "train.py")
        e = self.only()
        self.assertEqual(out.strip(), e["id"])
        self.assertEqual((e["params"], e["status"], e["exit_code"]), ({"batch": 3, "lr": 0.1}, "finished", 0))
        self.assertIn(5, [c["step"] for c in self.commits(e["id"])])

    def test_strict(self):
        self.env["REPLICATE_STRICT"] = "1"
        _, err = self.run_script("import replicate; e = replicate.init(); e.stop('nonsense')", code=1)
        self.assertIn("replicate.Error: ", err)


class ProcessesTest(support.Lab):
    def test_fork(self):
        """A child is silent, whether Python or C has forked, and the parent goes on."""
        self.run_script("""
import os, sys, ctypes, multiprocessing, replicate
experiment = replicate.init()
def child():
    experiment.log(child=1)
    commit = experiment.commit(child=1)
    experiment.stop()
    assert commit.id == ""
for fork in (os.fork, ctypes.CDLL(None).fork):
    pid = fork()
    if pid == 0:
        child()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
context = multiprocessing.get_context("fork")
workers = [context.Process(target=child) for _ in range(8)]
for w in workers: w.start()
for w in workers: w.join()
assert [w.exitcode for w in workers] == [0] * 8
pid = os.fork()
if pid == 0:
    sys.exit(0)        # runs exit handlers
os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    raise SystemError  # runs the hook
os.waitpid(pid, 0)
assert experiment.commit(parent=1).id
""")
        e = self.only()
        self.assertEqual((e["status"], e["num_commits"], list(e["metrics"])), ("finished", 1, ["parent"]))

    def test_terminated_children(self):
        """multiprocessing ends its workers by SIGTERM: that is no end of the experiment."""
        self.run_script("""
import multiprocessing, time, signal, replicate
experiment = replicate.init()
context = multiprocessing.get_context("fork")
worker = context.Process(target=time.sleep, args=(60,))
worker.start()
time.sleep(0.1)
worker.terminate()
worker.join()
assert worker.exitcode == -signal.SIGTERM, worker.exitcode
experiment.commit()
""")
        self.assertEqual((self.only()["status"], self.only()["num_commits"]), ("finished", 1))

    def test_spawn(self):
        """A pickled experiment arrives as a reader that records nothing."""
        self.run_script("""
import copy, multiprocessing, pickle, replicate
def work(experiment, results):
    experiment.log(child=1)
    results.put((experiment.id, experiment.params, repr(experiment.commit(child=1).id), experiment.latest.step))
if __name__ == "__main__":
    experiment = replicate.init(lr=0.5)
    experiment.commit(step=3)
    assert copy.deepcopy(experiment) is experiment
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    worker = context.Process(target=work, args=(experiment, results))
    worker.start()
    assert results.get(timeout=60) == (experiment.id, {"lr": 0.5}, "''", 3)
    worker.join()
    assert worker.exitcode == 0
""")
        self.assertEqual((self.only()["num_commits"], self.only()["status"], self.only()["metrics"]), (1, "finished", {}))

    def test_threads(self):
        self.run_script("""
import threading, replicate
experiment = replicate.init()
def train(k):
    for step in range(20):
        for i in range(50):
            experiment.log(step=step, **{f"log{k}": i})
        assert experiment.commit(step=step, **{f"loss{k}": step}).id
threads = [threading.Thread(target=train, args=(k,)) for k in range(2)]
for t in threads: t.start()
for t in threads: t.join()
""")
        e = self.only()
        self.assertEqual(e["num_commits"], 40)
        self.assertEqual({name: m["last"] for name, m in e["metrics"].items()}, {"loss0": 19, "loss1": 19, "log0": 49, "log1": 49})

    def test_commit_from_a_signal_handler(self):
        self.run_script("""
import os, signal, replicate
experiment = replicate.init()
signal.signal(signal.SIGUSR1, lambda *_: experiment.commit(handler=1))
for step in range(5):
    os.kill(os.getpid(), signal.SIGUSR1)
    experiment.commit(step=step, loss=1)
""")
        self.assertEqual(self.only()["num_commits"], 10)

    def test_many_points(self):
        """10⁵ by default; REPLICATE_TEST_POINTS=1000000 makes it the million."""
        points = int(os.environ.get("REPLICATE_TEST_POINTS", "100000"))
        self.run_script(f"""
import replicate
experiment = replicate.init()
for step in range({points}):
    experiment.log(step=step, loss=1 / (step + 1))
""")
        e = self.only()
        self.assertEqual(e["metrics"]["loss"], {"first": 1.0, "max": 1.0, "last": 1 / points, "min": 1 / points, "best": None})

    def test_recorder_killed(self):
        """Killed between and during commits: every acknowledged commit is there, one warning, the training goes on."""
        out, err = self.run_script("""
import os, signal, replicate
experiment = replicate.init()
for step in range(10):
    if step == 5:
        os.kill(experiment._recorder._process.pid, signal.SIGKILL)
    commit = experiment.commit(step=step)
    assert commit.id, step
    print(commit.id)
""")
        self.assertEqual(err.count("warning: the recorder died and was started again"), 1, err)
        e = self.only()
        self.assertEqual(e["status"], "finished")
        ids = [c["id"] for c in self.commits(e["id"])]
        for id in out.split():
            self.assertIn(id, ids)

    def test_recorder_killed_twice(self):
        out, err = self.run_script("""
import os, signal, replicate
experiment = replicate.init()
for step in range(4):
    os.kill(experiment._recorder._process.pid, signal.SIGKILL) if step in (1, 2) else None
    print(bool(experiment.commit(step=step).id))
""")
        self.assertEqual(out.split(), ["True", "True", "False", "False"])
        self.assertIn("died again: nothing more is recorded", err)
        self.assertEqual(self.only()["num_commits"], 2)

    def test_recorder_stopped(self):
        """log() does not care, commit() wakes it."""
        self.run_script("""
import os, signal, time, replicate
from replicate import recorder
recorder.NUDGE_EVERY = 0.3
experiment = replicate.init()
os.kill(experiment._recorder._process.pid, signal.SIGSTOP)
start = time.monotonic()
for step in range(30000):
    experiment.log(step=step, loss=1.0)
assert time.monotonic() - start < 10
assert experiment.commit(step=30000).id
""")
        self.assertEqual(self.only()["metrics"]["loss"]["last"], 1.0)

    def test_tee_returns(self):
        """The recorder holds neither stdout nor stderr, so what reads them ends with the script."""
        self.write("train.py", "import replicate; replicate.init().commit(); print('done')")
        done = subprocess.run(["sh", "-c", f"'{sys.executable}' train.py 2>&1 | tee log"], cwd=self.dir, env=self.env, stdout=subprocess.PIPE,
                              text=True, timeout=120)
        self.assertIn("done", done.stdout)

    def test_only_the_first_process_of_slurm_says_so(self):
        self.env.update(SLURM_PROCID="3", SLURM_STEP_NUM_TASKS="8")
        out, err = self.run_script("import replicate; print(repr(replicate.init().id))")
        self.assertEqual(out, "''\n")
        self.assertIn("REPLICATE_RANK=0 makes it an experiment of its own", err)
        self.env["REPLICATE_RANK"] = "0"
        self.run_script("import replicate; replicate.init()")
        self.only()


if __name__ == "__main__":
    unittest.main()
