"""Ranks, notebooks and modules."""
import os
import sys
import types
import unittest
from unittest import mock

import support
from replicate import surroundings


class RanksTest(unittest.TestCase):
    TABLE = [
        ("alone", {}, True), ("given", {"REPLICATE_RANK": "0"}, True), ("given other", {"REPLICATE_RANK": "1"}, False),
        ("given wins", {"REPLICATE_RANK": "0", "RANK": "3", "WORLD_SIZE": "4"}, True),
        ("torchrun first", {"RANK": "0", "WORLD_SIZE": "8"}, True), ("torchrun other", {"RANK": "7", "WORLD_SIZE": "8"}, False),
        ("a world of one", {"RANK": "1", "WORLD_SIZE": "1"}, True), ("rank alone", {"RANK": "3"}, True), ("garbage", {"RANK": "x", "WORLD_SIZE": "y"}, True),
        ("open mpi", {"OMPI_COMM_WORLD_RANK": "1"}, False), ("open mpi first", {"OMPI_COMM_WORLD_RANK": "0"}, True),
        ("pmi", {"PMI_RANK": "2"}, False), ("pmix", {"PMIX_RANK": "2"}, False),
        ("slurm", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "8"}, False), ("slurm first", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "8"}, True),
        ("slurm of one task", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "1"}, True), ("slurm batch", {"SLURM_PROCID": "0"}, True),
    ]

    def test_environment(self):
        for name, environ, first in self.TABLE:
            with self.subTest(name), mock.patch.dict(os.environ, environ, clear=True), mock.patch.dict(sys.modules, {"torch.distributed": None}):
                notes = []
                self.assertEqual(surroundings.is_first(notes), first)
                self.assertEqual(len(notes), int(name == "slurm"))

    def test_torch_distributed(self):
        """Asked only if it is loaded and initialised."""
        for initialized, rank, first in ((True, 0, True), (True, 1, False), (False, 1, True)):
            distributed = types.SimpleNamespace(is_available=lambda: True, is_initialized=lambda: initialized, get_rank=lambda: rank)
            with mock.patch.dict(os.environ, {}, clear=True), mock.patch.dict(sys.modules, {"torch.distributed": distributed}):
                self.assertEqual(surroundings.is_first([]), first)

    def test_real_torch_distributed(self):
        python = support.python_with(self, "torch")
        script = """
import os, sys, torch.distributed as distributed
distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
from replicate import surroundings
print(surroundings.is_first([]))
"""
        with support.tempfile.TemporaryDirectory() as dir:
            env = {name: value for name, value in os.environ.items() if "RANK" not in name}
            env["PYTHONPATH"] = support.PACKAGE
            started = [support.subprocess.Popen([python, "-c", script, os.path.join(dir, "meet"), str(rank)], env=env, text=True,
                                                stdout=support.subprocess.PIPE, stderr=support.subprocess.PIPE) for rank in range(2)]
            self.assertEqual([process.communicate(timeout=120)[0] for process in started], ["True\n", "False\n"])


class NotebookTest(support.Lab):
    def test_cells_are_committed(self):
        """What a notebook has executed so far goes along with each commit."""
        python = support.python_with(self, "IPython")
        self.write("notebook.py", """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in ("import replicate", "experiment = replicate.init(lr=0.1)", "print(experiment.commit(loss=1.0).id)", "1 / 0",
             "print(experiment.commit(loss=0.5).id); experiment2 = replicate.init()"):
    shell.run_cell(cell, store_history=True)
""")
        out, _ = self.run_script("exec(open('notebook.py').read())", python=python)
        ids = [line for line in out.splitlines() if len(line) == 32]
        self.assertEqual(len(ids), 2, out)
        cells = self.replicate("cat", ids[1] + ":.replicate/cells.py")
        self.assertIn("# In[2]\nexperiment = replicate.init(lr=0.1)\n", cells)
        self.assertIn("1 / 0", cells)
        self.assertNotIn("1 / 0", self.replicate("cat", ids[0] + ":.replicate/cells.py"))
        self.assertEqual([e["status"] for e in self.experiments()], ["finished", "finished"])  # an error in a cell is no end

    def test_no_notebook(self):
        with mock.patch.dict(sys.modules):
            sys.modules.pop("IPython", None)
            self.assertIsNone(surroundings.cells())


class ModulesTest(unittest.TestCase):
    def test_told_once(self):
        first = surroundings.new_modules()
        self.assertIn("unittest", first + surroundings.new_modules() or ["unittest"])
        self.assertEqual(surroundings.new_modules(), [])
        with mock.patch.dict(sys.modules, {"a_new_one.sub": types.ModuleType("a_new_one.sub")}):
            self.assertIn("a_new_one", surroundings.new_modules())


if __name__ == "__main__":
    unittest.main()
