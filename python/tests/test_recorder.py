"""Recorders that misbehave: a training goes on whatever they do. fake_recorder.py has the habits."""
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest

import support

TRAIN = """
import replicate
experiment = replicate.init(lr=0.1)
for step in range(3):
    experiment.log(step=step, loss=0.5)
    print(repr(experiment.commit(step=step, loss=1.0 / (step + 1)).id[:1]))
"""


class Fake(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="replicate-test-")
        self.addCleanup(support.shutil.rmtree, self.dir, True)
        self.log = os.path.join(self.dir, "lines")
        self.env = dict(os.environ, PYTHONPATH=support.PACKAGE, REPLICATE_BINARY=support.FAKE, FAKE_RECORDER_LOG=self.log)

    def train(self, habits, script=TRAIN, code=0, timeout=180, **env):
        """Runs a script; returns what it printed, and its stderr."""
        done = subprocess.run([sys.executable, "-c", script], cwd=self.dir, env=dict(self.env, FAKE_RECORDER=habits, **env),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout, done.stderr

    def lines(self):
        with open(self.log) as file:
            return [json.loads(line) for line in file]

    def requests(self, op):
        return [line for line in self.lines() if line["op"] == op]

    def test_a_good_one(self):
        out, err = self.train("good")
        self.assertEqual(out, "'c'\n" * 3)
        self.assertEqual(err.splitlines()[0], "replicate: experiment fffffff, 2 files (1.2 MB) saved; left out data/ (3.1 GB, .gitignore) and .env (secret)")
        self.assertRegex(err.splitlines()[1], r"^replicate: fffffff finished after \d+ s, 3 commits$")
        self.assertEqual(len(err.splitlines()), 2)
        self.assertEqual([line["op"] for line in self.lines()], ["hello", "init"] + ["log", "commit"] * 3 + ["end"])

    def test_lines_of_the_protocol(self):
        self.train("good")
        hello, init, log, commit, *_, end = self.lines()
        self.assertEqual(set(hello), {"id", "op", "protocol", "client", "pid"})
        self.assertEqual((hello["protocol"], hello["client"].partition(" ")[0]), (1, "python"))
        self.assertEqual(set(init), {"id", "op", "params", "name", "tags", "path", "metric", "resume", "parent", "cwd", "argv", "env", "python"})
        self.assertEqual((init["params"], init["cwd"]), ({"lr": 0.1}, os.path.realpath(self.dir)))
        self.assertEqual(init["argv"][:-1][-1] if sys.version_info >= (3, 10) else "-c", "-c")
        self.assertEqual(init["python"]["version"], ".".join(map(str, sys.version_info[:3])))
        self.assertEqual((log["step"], log["metrics"], "id" in log), (0, {"loss": 0.5}, False))
        self.assertAlmostEqual(log["time"], time.time(), delta=60)
        self.assertEqual(set(commit), {"id", "op", "step", "time", "metrics", "path", "message", "modules", "cells"})
        self.assertIn("json", commit["modules"])
        self.assertEqual((end["status"], end["wait"]), ("finished", 5.0))

    def test_dies_once(self):
        out, err = self.train("dies-once")
        self.assertEqual(out, "'c'\n" * 3)
        self.assertEqual(err.count("warning:"), 1)
        self.assertIn("replicate: warning: the recorder died and was started again", err)
        self.assertEqual([line["resume"] for line in self.requests("init")], [None, "f" * 32])
        self.assertEqual([line["step"] for line in self.requests("commit")], [0, 0, 1, 2])  # the one without an answer again
        self.assertEqual(self.lines()[-1]["op"], "end")

    def test_dies_every_time(self):
        out, err = self.train("dies")
        self.assertEqual(out, "''\n" * 3)
        self.assertEqual(err.count("warning:"), 2)
        self.assertIn("died again: nothing more is recorded", err)
        self.assertEqual(len(self.requests("init")), 2)

    def test_says_nonsense(self):
        out, err = self.train("nonsense")
        self.assertEqual(out, "''\n" * 3)
        self.assertIn("died again", err)

    def test_killed_between_logs(self):
        script = """
import os, signal, replicate
experiment = replicate.init()
for step in range(100):
    if step == 50:
        os.kill(experiment._recorder._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, experiment._recorder._process.pid, os.WEXITED | os.WNOWAIT)
    experiment.log(step=step, loss=0.5)
"""
        _, err = self.train("good", script)
        self.assertIn("was started again", err)
        steps = [line["step"] for line in self.requests("log")]
        self.assertEqual(steps[-50:], list(range(50, 100)))
        self.assertEqual(self.lines()[-1]["op"], "end")

    LATE = """
import os, signal, replicate
from replicate import recorder
experiment = replicate.init()
pid = experiment._recorder._process.pid
os.kill(pid, signal.SIGKILL)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
experiment.log(step=1, loss=0.5)
"""

    def test_training_does_not_wait_for_a_new_recorder(self):
        _, err = self.train("late-again", self.LATE + """
open(os.environ["FAKE_RECORDER_LOG"] + ".go", "w").close()  # only now it answers hello
print(experiment.commit(step=2))
""")
        self.assertIn("was started again", err)
        self.assertEqual([line["op"] for line in self.lines()], ["hello", "init"] * 2 + ["log", "commit", "end"])

    def test_a_new_recorder_that_never_answers(self):
        _, err = self.train("late-again", self.LATE + """
recorder.HELLO_AGAIN = recorder.NUDGE_EVERY = 0.1
print(experiment.commit(step=2))
""")
        self.assertIn("died again: nothing more is recorded", err)

    def test_sigpipe_does_not_kill(self):
        script = """
import os, signal, replicate
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
experiment = replicate.init()
pid = experiment._recorder._process.pid
for _ in range(2):
    os.kill(experiment._recorder._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, experiment._recorder._process.pid, os.WEXITED | os.WNOWAIT)
    experiment.log(loss=0.5)
print("alive")
"""
        self.assertEqual(self.train("good", script)[0], "alive\n")

    def test_refused_commit(self):
        out, err = self.train("full")
        self.assertEqual(out, "''\n" * 3)
        self.assertEqual(err.count("replicate: warning: commit: no space left on device\nreplicate: hint: make room\n"), 1)  # once a minute
        self.assertIn("finished after", err)
        out, _ = self.train("full", "import replicate\nprint(replicate.init().commit(step=1))")
        self.assertEqual(out, "<Commit not saved, step 1>\n")

    def test_strict_raises(self):
        _, err = self.train("full", code=1, REPLICATE_STRICT="1")
        self.assertIn("replicate.Error: commit: no space left on device\nreplicate: hint: make room\n", err)
        self.assertEqual(self.lines()[-1]["status"], "failed")

    def test_another_program_of_that_name(self):
        for habit in ("garbage", "silent"):
            with self.subTest(habit):
                def attempt():
                    start = time.monotonic()
                    _, err = self.train(habit, "import replicate.recorder\nreplicate.recorder.HELLO_WAIT = 1\nreplicate.init()", code=1)
                    self.assertIn(f"replicate.Error: start the recorder {support.FAKE}: it does not answer as replicate does\n"
                                  "replicate: hint: another program of that name?", err)
                    return time.monotonic() - start
                support.soon(self, 10, attempt)

    def test_programs_that_are_no_recorder(self):
        for binary, message in (("/bin/true", "does not answer"), ("/bin/cat", "does not answer"), ("/nowhere", "no such file or directory"),
                                (self.dir, "permission denied")):
            with self.subTest(binary):
                _, err = self.train("", code=1, REPLICATE_BINARY=binary)
                self.assertIn(f"start the recorder {binary}: ", err)
                self.assertIn(message, err)

    def test_protocol_too_old(self):
        _, err = self.train("old", code=1)
        self.assertIn("replicate.Error: client speaks protocol 1, this is 0\nreplicate: hint: update", err)

    def test_notes_are_shown(self):
        out, err = self.train("chatty")
        self.assertEqual(out, "'c'\n" * 3)
        self.assertEqual(err.count("replicate: warning: a warning\nreplicate: hint: a hint\n"), 1)
        self.assertGreaterEqual(err.count("replicate: a note\n"), 4)

    def test_quiet(self):
        self.assertEqual(self.train("chatty,full", REPLICATE_QUIET="1"), ("''\n" * 3, ""))

    def test_disable(self):
        self.assertEqual(self.train("good", REPLICATE_DISABLE="1"), ("''\n" * 3, ""))
        self.assertFalse(os.path.exists(self.log))

    def test_does_not_read(self):
        """The pipe fills, then memory, up to 64 MiB; log() never waits."""
        script = """
import os, sys, time, replicate
from replicate import recorder, experiment as experiment_module
recorder.BACKLOG_LIMIT = 4 << 20
experiment = replicate.init()
times = []
for step in range(60000):
    start = time.perf_counter()
    experiment.log(step=step, loss=0.5, name="x" * 50)
    times.append(time.perf_counter() - start)
queue = experiment._recorder
print(queue._held <= 4 << 20, queue._dropped > 0, sorted(times)[len(times) // 2] < 1e-4)
first = next(line for line, written, point in queue._queue if not written)
print(b'"step":0,' in first)
experiment_module.END_WAIT = 0
"""
        out, err = self.train("deaf", script, REPLICATE_EXIT_WAIT="0.5")
        self.assertEqual(out, "True True True\nFalse\n")
        self.assertIn("warning: the recorder does not keep up: the oldest points are dropped\n", err)
        self.assertIn("warning: the recorder does not answer and is left alone with experiment fffffff\n", err)

    def test_points_dropped_are_counted(self):
        """Stopped for a while, then it reads on: what is missing in its lines is the number it is told."""
        script = """
import os, signal, replicate
from replicate import recorder
recorder.BACKLOG_LIMIT = 1 << 20
experiment = replicate.init()
pid = experiment._recorder._process.pid
os.kill(pid, signal.SIGSTOP)
for step in range(30000):
    experiment.log(step=step, loss=0.5)
os.kill(pid, signal.SIGCONT)
experiment.commit()
"""
        _, err = self.train("good", script)
        dropped = sum(line["points"] for line in self.requests("dropped"))
        self.assertGreater(dropped, 0)
        steps = [line["step"] for line in self.requests("log")]
        self.assertEqual(len(steps) + dropped, 30000)
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(steps[-1], 29999)
        self.assertIn("the oldest points are dropped", err)

    def test_stopped_recorder_is_nudged(self):
        script = """
import os, signal, replicate
from replicate import recorder
recorder.NUDGE_EVERY = 0.2
experiment = replicate.init()
os.kill(experiment._recorder._process.pid, signal.SIGSTOP)
print(experiment.commit().id[:1])
"""
        self.assertEqual(self.train("good", script)[0], "c\n")

    def test_signal_handlers_may_commit(self):
        """A handler that commits and logs, run after every millisecond in the middle of commits and logs."""
        script = """
import signal, replicate
experiment = replicate.init()
inner = []
going = True
def handler(number, frame):
    experiment.log(inner=1)
    inner.append(experiment.commit(inner=1))
    if going:
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # one at a time: on a slow machine there would be no end of handlers within handlers
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
for step in range(3000):
    experiment.log(step=step, outer=1)
    assert experiment.commit(step=step, outer=1).id
going = False
signal.setitimer(signal.ITIMER_REAL, 0)
experiment.commit(step=3000, outer=1)
print(len(inner), sum(bool(commit.id) for commit in inner))
"""
        out, _ = self.train("good", script)
        made, answered = map(int, out.split())
        self.assertGreater(made, 50)
        self.assertEqual(answered, made)
        commits = self.requests("commit")
        self.assertEqual([line["step"] for line in commits if "outer" in line["metrics"]], list(range(3001)))
        self.assertEqual(sum("inner" in line["metrics"] for line in commits), made)
        self.assertEqual(sum("inner" in line["metrics"] for line in self.requests("log")), made)

    def test_ctrl_c_anywhere_leaves_whole_lines(self):
        """Interrupts at random places of log and commit: every line the recorder got is whole, no request is lost."""
        script = """
import random, signal, replicate
experiment = replicate.init()
random.seed(1)
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted = 0
while interrupted < 1000:
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-3))
            while True:
                experiment.log(step=interrupted, name="x" * 8000)
                experiment.commit(step=interrupted)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
print(experiment._recorder._deaths, bool(experiment.commit(step=1000).id))
"""
        out, err = self.train("good", script)
        self.assertEqual(out, "0 True\n", err)
        self.assertEqual(err.count("warning"), 0, err)
        self.assertEqual(self.requests("end")[0]["status"], "finished")
        numbers = [line["id"] for line in self.lines() if "id" in line]
        self.assertEqual(len(numbers), len(set(numbers)))

    def test_threads(self):
        script = """
import threading, replicate
experiment = replicate.init()
def train(k):
    for step in range(200):
        experiment.log(step=step, **{f"k{k}": 1})
        assert experiment.commit(step=step, **{f"k{k}": 1}).step == step
threads = [threading.Thread(target=train, args=(k,)) for k in range(4)]
for t in threads: t.start()
for t in threads: t.join()
"""
        self.train("good", script)
        for op in ("log", "commit"):
            for k in range(4):
                self.assertEqual([line["step"] for line in self.requests(op) if f"k{k}" in line["metrics"]], list(range(200)))

    def test_closed_standard_streams(self):
        script = "import os; os.close(0); os.close(1); os.close(2)\n" + TRAIN.replace("print(", "(")
        self.train("good", script)
        self.assertEqual([line["op"] for line in self.lines()].count("commit"), 3)

    def test_no_descriptor_is_inherited(self):
        with open(self.log, "w") as held:
            os.set_inheritable(held.fileno(), False)
            script = f"""
import os, replicate
experiment = replicate.init()
pid = experiment._recorder._process.pid
print(sorted(os.listdir(f"/proc/{{pid}}/fd"), key=int)[:3])
ours = {{os.readlink(f"/proc/self/fd/{{fd}}") for fd in (experiment._recorder._process.to, experiment._recorder._process.source)}}
theirs = [os.readlink(f"/proc/{{pid}}/fd/{{fd}}") for fd in (0, 1)]
print(sorted(ours) == sorted(theirs), all(fd > 2 for fd in (experiment._recorder._process.to, experiment._recorder._process.source)))
"""
            self.assertEqual(self.train("good", script)[0], "['0', '1', '2']\nTrue True\n")

    def test_lines_too_long(self):
        script = """
import replicate
experiment = replicate.init()
experiment.log({str(i): "x" * 60000 for i in range(400)})
experiment.commit(loss=1.0)
"""
        _, err = self.train("good", script)
        self.assertIn("replicate: warning: log: ", err)
        self.assertEqual(len(self.requests("log")), 0)
        self.assertEqual(len(self.requests("commit")), 1)


class FindBinaryTest(unittest.TestCase):
    def test_search_order(self):
        from replicate import recorder
        self.addCleanup(os.environ.update, PATH=os.environ["PATH"])
        given = os.environ.pop("REPLICATE_BINARY", None)
        if given:
            self.addCleanup(os.environ.update, REPLICATE_BINARY=given)
        top = tempfile.mkdtemp()
        self.addCleanup(support.shutil.rmtree, top)
        package = os.path.join(top, "prefix", "lib", "python3", "site-packages", "replicate")
        places = [os.path.join(package, "bin"), os.path.join(top, "prefix", "bin"), os.path.join(top, "path")]
        os.environ["PATH"] = places[2]
        file = recorder.__file__
        self.addCleanup(setattr, recorder, "__file__", file)
        self.addCleanup(setattr, sys, "executable", sys.executable)
        recorder.__file__ = os.path.join(package, "recorder.py")
        sys.executable = os.path.join(top, "python")
        with self.assertRaises(recorder.NotFound):
            recorder.find_binary()
        for place in reversed(places):  # each wins over those made before
            os.makedirs(place)
            path = os.path.join(place, "replicate")
            with open(path, "w"):
                pass
            with self.subTest(place):
                os.chmod(path, 0o644)
                self.assertRaises(recorder.NotFound, recorder.find_binary) if place is places[2] else None
                os.chmod(path, 0o755)
                self.assertEqual(recorder.find_binary(), path)
        os.environ["REPLICATE_BINARY"] = "/given"
        self.assertEqual(recorder.find_binary(), "/given")
        del os.environ["REPLICATE_BINARY"]


if __name__ == "__main__":
    unittest.main()
