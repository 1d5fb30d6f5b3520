"""What the tests share: the real binary, directories to train in, processes to end in every way."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
ROOT = os.path.dirname(PACKAGE)
BINARY = os.environ.get("REPLICATE_BINARY") or os.path.join(ROOT, "bin", "replicate")
FAKE = os.path.join(HERE, "fake_recorder.py")
DEBIAN_PYTHON = "/usr/bin/python3"  # the one that python3-torch and its like are installed for

sys.path.insert(0, PACKAGE)


def need(case, there, name):
    """Skips a test that cannot run here, by the name of what is missing; fails it where everything must be there."""
    if not there:
        if os.environ.get("REPLICATE_TEST_REQUIRE") == "all":
            case.fail(f"{name} is missing")
        case.skipTest(f"{name} is missing")


def python_with(case, *modules):
    """An interpreter that can import modules."""
    for python in (sys.executable, DEBIAN_PYTHON):
        if os.path.exists(python):
            test = [python, "-c", "import " + ", ".join(modules)]
            if subprocess.run(test, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                return python
    need(case, False, "a Python with " + " and ".join(modules))


def wait_for(true, what="that", seconds=60.0):
    """Waits until true() is, looking often."""
    until = time.monotonic() + seconds
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def soon(case, seconds, attempt):
    """Makes attempts until one takes at most so long as it says: others want the machine too."""
    took = []
    while not took or min(took) > seconds:
        case.assertLess(len(took), 10, f"none took {seconds} s at most: {took}")
        took.append(attempt())


def hear_interrupts():
    """Whoever runs the tests in the background of a shell ignores Ctrl-C, and so would every script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Lab(unittest.TestCase):
    """A test with an empty project directory, an environment for scripts in it, and the command line."""

    def setUp(self):
        need(self, os.access(BINARY, os.X_OK), "bin/replicate (make build)")
        self.top = os.path.realpath(tempfile.mkdtemp(prefix="replicate-test-"))
        self.addCleanup(shutil.rmtree, self.top, True)
        self.fresh()
        self.env = {name: value for name, value in os.environ.items()
                    if not name.startswith(("REPLICATE_", "SLURM_", "OMPI_", "PMI")) and name not in ("RANK", "WORLD_SIZE")}
        self.env.update(PYTHONPATH=PACKAGE, REPLICATE_BINARY=BINARY, HOME=self.top, XDG_CACHE_HOME=os.path.join(self.top, "cache"),
                        PYTHONDONTWRITEBYTECODE="1", TMPDIR=self.top)

    def fresh(self):
        """Goes on in an empty project of its own."""
        self.dir = os.path.join(self.top, "project")
        while os.path.exists(self.dir):
            self.dir += "+"
        os.mkdir(self.dir)
        self.write("replicate.yaml", "")

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read()

    def start(self, script, *args, python=sys.executable, prefix=(), **options):
        """Starts a script, given as text, as train.py of the project."""
        self.write("train.py", script)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("preexec_fn", hear_interrupts)
        process = subprocess.Popen([*prefix, python, "train.py", *args], cwd=self.dir, env=self.env, stdout=subprocess.PIPE, text=True,
                                   **options)
        self.addCleanup(stop, process)
        return process

    def run_script(self, script, *args, code=0, **options):
        """Runs a script to its end; returns what it printed on stdout and on stderr."""
        process = self.start(script, *args, **options)
        out, err = process.communicate(timeout=120)
        if code is not None:
            self.assertEqual(process.returncode, code, f"stdout:\n{out}\nstderr:\n{err}")
        return out, err

    def replicate(self, *args, code=0):
        """Runs the command line in the project; returns its stdout."""
        done = subprocess.run([BINARY, *args], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120)
        self.assertEqual(done.returncode, code, f"replicate {args}: {done.stderr.decode()}")
        return done.stdout.decode()

    def experiments(self):
        return json.loads(self.replicate("ls", "--json"))

    def only(self):
        """The only experiment there is."""
        experiments = self.experiments()
        self.assertEqual(len(experiments), 1, experiments)
        return experiments[0]

    def commits(self, id):
        return json.loads(self.replicate("show", id, "--json"))["commits"]

    def ends_as(self, status):
        """Waits until the only experiment has ended, and checks how."""
        def ended():
            return [e for e in self.experiments() if e["status"] != "running"]
        self.assertEqual(wait_for(ended, "an end")[0]["status"], status)
        return self.only()


def stop(process):
    if process.poll() is None:
        process.kill()
    process.communicate()
