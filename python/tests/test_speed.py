"""What a training waits for: import and log. The bars are those of an idle machine times three; `make bench` has the figures."""
import os
import subprocess
import sys
import unittest

import support

HEAVY = {"subprocess", "logging", "dataclasses", "traceback", "importlib.metadata", "threading", "typing", "asyncio", "tempfile", "numpy", "torch",
         "pandas", "IPython", "replicate.reading"}
SLACK = 3


class ImportTest(unittest.TestCase):
    def test_no_heavy_module(self):
        script = "import sys; before = set(sys.modules); import replicate; print(*(set(sys.modules) - before))"
        for python in {sys.executable, support.DEBIAN_PYTHON}:
            if os.path.exists(python):
                out = subprocess.check_output([python, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {support.PACKAGE!r}); {script}"], text=True)
                self.assertEqual(HEAVY & set(out.split()), set())

    def test_import_time(self):
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with support.tempfile.TemporaryDirectory() as cache:
            env.update(PYTHONPATH=support.PACKAGE, PYTHONPYCACHEPREFIX=cache)
            script = "import time; start = time.perf_counter(); import replicate; print(time.perf_counter() - start)"
            times = [float(subprocess.check_output([sys.executable, "-c", script], env=env)) for _ in range(6)]
        self.assertLess(min(times), 0.020 * SLACK)


class CallsTest(support.Lab):
    def test_log(self):
        """The calmest of twenty rounds: what others do on the machine is no part of it."""
        out, _ = self.run_script("""
import time, replicate
experiment = replicate.init()
rounds = []
for _ in range(20):
    times = []
    for i in range(1000):
        start = time.perf_counter()
        experiment.log(step=i, a=0.1, b=0.2, c=0.3, d=0.4, e=5, f=6, g=0.7, h=0.8)
        times.append(time.perf_counter() - start)
    times.sort()
    rounds.append((times[500], times[990]))
print(*map(min, zip(*rounds)))
""")
        median, slow = map(float, out.split())
        self.assertLess(median, 20e-6 * SLACK)
        self.assertLess(slow, 1e-3 * SLACK)

    def test_log_during_a_snapshot(self):
        """The thread that logs does not wait for the one that commits."""
        out, _ = self.run_script("""
import os, threading, time, replicate
os.mkdir("data")
for i in range(30):
    with open(f"data/{i}", "wb") as f: f.write(os.urandom(1 << 20))
experiment = replicate.init(path=[])
running = threading.Thread(target=lambda: experiment.commit(path="data"))
times = []
running.start()
while running.is_alive():
    start = time.perf_counter()
    experiment.log(loss=0.5)
    times.append(time.perf_counter() - start)
times.sort()
print(len(times), times[len(times) // 4])
""")
        count, quarter = map(float, out.split())
        self.assertGreater(count, 100)
        self.assertLess(quarter, 1e-3)  # the snapshot takes a hundred times as long


if __name__ == "__main__":
    unittest.main()
