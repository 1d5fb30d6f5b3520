"""The wheel, and pip, without a package index."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

import support

sys.path.insert(0, support.PACKAGE)
import replicate_wheel

PYTHONS = [python for python in (sys.executable, support.DEBIAN_PYTHON) if os.path.exists(python)]


def run(*command, cwd=None):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH", "REPLICATE_"))}
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class WheelTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="replicate-test-")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.addCleanup(setattr, replicate_wheel, "BINARY", replicate_wheel.BINARY)
        replicate_wheel.BINARY = support.BINARY

    def build(self):
        return os.path.join(self.dir, replicate_wheel.build_wheel(self.dir))

    def test_with_the_binary(self):
        support.need(self, os.access(support.BINARY, os.X_OK), "bin/replicate (make build)")
        path = self.build()
        self.assertRegex(path, r"replicate-[0-9.]+-py3-none-(manylinux2014_\w+\.manylinux_2_17_\w+\.musllinux_1_1_\w+|macosx_11_0_\w+)\.whl$")
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
            self.assertIn("replicate/bin/replicate", names)
            self.assertIn("replicate/reading.py", names)
            with open(support.BINARY, "rb") as binary:
                self.assertEqual(wheel.read("replicate/bin/replicate"), binary.read())
            for info in wheel.infolist():
                self.assertEqual(info.external_attr >> 16 & 0o111 != 0, info.filename.endswith("/replicate"), info.filename)
        with open(path, "rb") as first:
            content = first.read()
        with open(self.build(), "rb") as second:
            self.assertEqual(second.read(), content)

    def test_without_the_binary(self):
        replicate_wheel.BINARY = os.path.join(self.dir, "nothing")
        path = self.build()
        self.assertTrue(path.endswith("-py3-none-any.whl"))
        with zipfile.ZipFile(path) as wheel:
            self.assertFalse([name for name in wheel.namelist() if "bin" in name or "scripts" in name])

    def test_platforms(self):
        elf = b"\x7fELF\x02\x01\x01" + bytes(11)
        self.assertIn("x86_64", replicate_wheel.platform_of(elf + b"\x3e\x00"))
        self.assertIn("aarch64", replicate_wheel.platform_of(elf + b"\xb7\x00"))
        self.assertEqual(replicate_wheel.platform_of(b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01"), "macosx_11_0_arm64")
        with self.assertRaises(SystemExit):
            replicate_wheel.platform_of(b"#!/bin/sh")

    def test_pip_install(self):
        """`pip install ./python` in a fresh environment, for each Python there is: the package, its binary and the command work."""
        support.need(self, os.access(support.BINARY, os.X_OK), "bin/replicate (make build)")
        for number, python in enumerate(PYTHONS):
            with self.subTest(python):
                venv = os.path.join(self.dir, f"venv{number}")
                made = run(python, "-m", "venv", "--without-pip", venv)
                pip = [python, "-m", "pip", "--python", os.path.join(venv, "bin", "python")]
                support.need(self, made.returncode == 0 and run(*pip, "--version").returncode == 0, f"pip 22.3 or newer of {python}")
                done = run(*pip, "install", "--no-index", os.path.join(support.ROOT, "python"))
                self.assertEqual(done.returncode, 0, done.stdout)
                project = os.path.join(self.dir, f"project{number}")
                os.mkdir(project)
                done = run(os.path.join(venv, "bin", "python"), "-c", "import replicate; replicate.init(lr=0.5).commit(loss=1.0); print(replicate.__file__)", cwd=project)
                self.assertEqual(done.returncode, 0, done.stdout)
                self.assertIn(venv, done.stdout)
                done = run(os.path.join(venv, "bin", "replicate"), "ls", "-p", cwd=project)
                self.assertIn("LR", done.stdout)


if __name__ == "__main__":
    unittest.main()
