"""Every way a training can end, as a real process, and what the experiment says afterwards."""
import calendar
import json
import os
import signal
import subprocess
import sys
import time
import unittest

import support

BEGIN = """
import ctypes, multiprocessing, os, signal, sys, threading, time
import replicate
experiment = replicate.init()
experiment.commit(step=0, loss=1.0)
"""

# The sleeps are short as a signal that comes just before one begins is seen when it is over, by any Python.
UNTIL_A_SIGNAL = """
print("ready", flush=True)
while True: time.sleep(0.01)
"""


class EndingsTest(support.Lab):
    def ends(self, script, status, code, **options):
        """Runs a script to its end and checks the status that the experiment has at once."""
        out, err = self.run_script(BEGIN + script, code=code, **options)
        e = self.ends_as(status)
        self.assertEqual(e["num_commits"], 1)
        self.assertIsNotNone(e["ended"])
        return e, err

    def failure(self, e):
        return json.loads(self.replicate("show", e["id"], "--json"))["error"]

    def test_end_of_the_script(self):
        e, err = self.ends("", "finished", 0)
        self.assertIn("finished after", err)
        self.assertIsNone(e["exit_code"])

    def test_stop(self):
        self.ends("experiment.stop(); experiment.stop()", "finished", 0)

    def test_stop_with_a_status(self):
        self.ends("experiment.stop('failed')", "failed", 0)

    def test_exception(self):
        e, err = self.ends("def deep(): raise ValueError('boom ü')\ndeep()", "failed", 1)
        self.assertIn("failed after", err)
        self.assertIn("ValueError: boom ü", err)
        failure = self.failure(e)
        self.assertIn("in deep", failure["traceback"])
        self.assertIn("ValueError: boom ü", failure["traceback"])

    def test_long_traceback(self):
        e, _ = self.ends("raise ValueError('x' * 20000 + 'the end')", "failed", 1)
        traceback = self.failure(e)["traceback"]
        self.assertLessEqual(len(traceback), 8200)
        self.assertIn("the end", traceback)

    def test_hooks_of_others_are_called(self):
        out, err = self.run_script("import sys\nsys.excepthook = lambda *a: print('before us', a[0].__name__)\n" + BEGIN
                                   + "ours = sys.excepthook\nsys.excepthook = lambda *a: (print('after us'), ours(*a))\n1 / 0", code=1)
        self.assertEqual(out, "after us\nbefore us ZeroDivisionError\n")
        self.ends_as("failed")

    def test_exit_handlers_of_others_run(self):
        out, _ = self.run_script("import atexit; atexit.register(print, 'first')\n" + BEGIN + "atexit.register(print, experiment.status)")
        self.assertEqual(out, "running\nfirst\n")

    def test_sys_exit(self):
        """It cannot be seen without a wrapper."""
        self.ends("sys.exit(3)", "finished", 3)

    def test_sys_exit_under_the_wrapper(self):
        self.write("train.py", BEGIN + "sys.exit(3)")
        self.replicate("init", "--", sys.executable, "train.py", code=3)
        e = self.ends_as("failed")
        self.assertEqual(e["exit_code"], 3)

    def wait_for_commit(self):
        support.wait_for(lambda: [e for e in self.experiments() if e["num_commits"] == 1], "a commit")

    def test_ctrl_c(self):
        def attempt():
            self.fresh()
            process = self.start(BEGIN + UNTIL_A_SIGNAL, start_new_session=True)
            process.stdout.readline()
            start = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
            process.communicate(timeout=60)
            took = time.monotonic() - start
            self.assertEqual(process.returncode, -signal.SIGINT)
            self.ends_as("interrupted")
            return took
        support.soon(self, 2, attempt)

    def test_ctrl_c_at_every_stage(self):
        """From before init to after the end: never a traceback of ours that hangs, never half an experiment."""
        script = """
import replicate
experiment = replicate.init()
for step in range(50):
    experiment.log(step=step, loss=1.0)
    experiment.commit(step=step, loss=1.0)
"""
        def attempt(tenth):
            process = self.start(script, start_new_session=True)
            time.sleep(tenth * 0.03)
            start = time.monotonic()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=60)
            return time.monotonic() - start
        for tenth in range(1, 11):
            support.soon(self, 4, lambda: attempt(tenth))
        support.wait_for(lambda: all(e["status"] != "running" for e in self.experiments()), "ends")
        for e in self.experiments():
            self.assertIn(e["status"], ("interrupted", "finished", "crashed"))  # crashed: before init could return

    def test_ctrl_c_caught_by_the_script(self):
        self.ends("try:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\nexcept KeyboardInterrupt: pass", "finished", 0)

    def test_sigterm(self):
        self.ends("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "terminated", -signal.SIGTERM)

    def test_sigterm_from_outside(self):
        process = self.start(BEGIN + UNTIL_A_SIGNAL)
        process.stdout.readline()
        process.terminate()
        self.assertIn("terminated after", process.communicate(timeout=60)[1])
        self.assertEqual(process.returncode, -signal.SIGTERM)
        self.ends_as("terminated")

    def test_sigterm_in_a_commit(self):
        """Whatever call is under way, the end gets through."""
        for _ in range(5):
            process = self.start(BEGIN + "print('ready', flush=True)\nwhile True: experiment.log(loss=1.0); experiment.commit()")
            process.stdout.readline()
            time.sleep(0.05)
            process.terminate()
            process.communicate(timeout=60)
            self.assertEqual(process.returncode, -signal.SIGTERM)
        support.wait_for(lambda: all(e["status"] == "terminated" for e in self.experiments()), "ends")

    def test_sigterm_handlers_of_others_stay(self):
        self.ends("signal.signal(signal.SIGTERM, lambda *a: sys.exit(7))\nos.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "finished", 7)
        script = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(7))\n" + BEGIN + "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
        self.run_script(script, code=7)

    def test_init_in_a_thread(self):
        """Signal handlers cannot be set there; the rest works."""
        self.run_script("""
import threading, replicate
def train():
    replicate.init().commit(loss=1.0)
thread = threading.Thread(target=train)
thread.start(); thread.join()
""")
        self.ends_as("finished")

    def test_os_exit(self):
        self.ends("os._exit(0)", "crashed", 0)

    def test_segfault(self):
        self.ends("ctypes.string_at(0)", "crashed", -signal.SIGSEGV)

    def test_abort(self):
        self.ends("os.abort()", "crashed", -signal.SIGABRT)

    def test_kill(self):
        self.ends("os.kill(os.getpid(), signal.SIGKILL)", "crashed", -signal.SIGKILL)

    def test_kill_with_workers_alive(self):
        """Forked workers hold the pipe open; the end is seen within a second all the same."""
        def attempt():
            self.fresh()
            process = self.start(BEGIN + """
context = multiprocessing.get_context("fork")
workers = [context.Process(target=time.sleep, args=(300,)) for _ in range(4)]
for w in workers: w.start()
print(*[w.pid for w in workers], flush=True)
time.sleep(300)
""", stderr=subprocess.DEVNULL)
            pids = [int(pid) for pid in process.stdout.readline().split()]
            self.addCleanup(lambda: [os.kill(pid, signal.SIGKILL) for pid in pids if os.path.exists(f"/proc/{pid}")])
            start = time.time()
            process.kill()
            process.wait()
            ended = self.ends_as("crashed")["ended"]
            self.assertTrue(all(os.path.exists(f"/proc/{pid}") for pid in pids))
            return calendar.timegm(time.strptime(ended[:19], "%Y-%m-%dT%H:%M:%S")) + float("0" + ended[19:-1]) - start
        support.soon(self, 1.5, attempt)

    def test_kill_of_both(self):
        """Nobody is left to write the end: the next command on this machine does, and nothing acknowledged is lost."""
        process = self.start(BEGIN + "print(experiment._recorder._process.pid, flush=True); time.sleep(60)")
        os.kill(int(process.stdout.readline()), signal.SIGKILL)
        process.kill()
        process.wait()
        self.assertEqual(self.ends_as("crashed")["num_commits"], 1)

    def test_ctrl_c_in_the_end(self):
        """Ends the wait; the end itself gets through."""
        e, err = self.ends("""
pid = experiment._recorder._process.pid
os.kill(pid, signal.SIGSTOP)
try:
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    experiment.stop()
except KeyboardInterrupt:
    print("interrupted")
os.kill(pid, signal.SIGCONT)
""", "finished", 0)
        self.assertNotIn("warning", err)

    def test_failure_before_the_first_commit_has_its_code(self):
        self.run_script("import replicate\nreplicate.init()\nraise ValueError", code=1)
        e = self.only()
        self.assertEqual((e["status"], e["num_commits"]), ("failed", 0))
        self.assertIn("raise ValueError", self.replicate("cat", e["id"] + ":train.py"))

    def test_exit_is_fast(self):
        script = """
import atexit, time
begin = []
def measure(): print(time.perf_counter() - begin[0])
atexit.register(measure)          # runs after ours
import replicate
experiment = replicate.init()
for i in range(1000): experiment.log(loss=i)
experiment.commit()
begin.append(time.perf_counter())
"""
        support.soon(self, 2, lambda: float(self.run_script(script)[0]))  # bar: 0.2 s on an idle machine


if __name__ == "__main__":
    unittest.main()
