"""Torch as people use it: workers that fork, ranks that torchrun starts."""
import subprocess
import unittest

import support

# What torchrun does. Debian's command itself fails under Python 3.11: Std.NONE becomes None in its option parser.
TORCHRUN = """
import sys
from torch.distributed.elastic.multiprocessing import Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
elastic_launch(LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=8, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="test", monitor_interval=0.1,
                            redirects=Std.OUT, tee=Std.OUT), entrypoint=sys.executable)("train.py")
"""


class TorchTest(support.Lab):
    def test_data_loader_workers(self):
        """Eight forked workers, epoch after epoch, call the experiment they have inherited: nothing hangs, they record nothing."""
        python = support.python_with(self, "torch")
        self.run_script("""
import torch, replicate
class Data(torch.utils.data.Dataset):
    def __len__(self): return 16
    def __getitem__(self, i):
        experiment.log(worker=i)
        return torch.tensor(float(i))
experiment = replicate.init()
for epoch in range(20):
    total = sum(batch.sum().item() for batch in torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=8))
    assert total == 120
    experiment.commit(step=epoch, total=total)
""", python=python)
        e = self.only()
        self.assertEqual((e["num_commits"], list(e["metrics"]), e["status"]), (20, ["total"], "finished"))

    def test_torchrun(self):
        """Eight ranks are one experiment."""
        python = support.python_with(self, "torch.distributed.run")
        self.write("train.py", """
import os, replicate
experiment = replicate.init(ranks=int(os.environ["WORLD_SIZE"]))
experiment.commit(step=1, rank=int(os.environ["RANK"]))
""")
        done = subprocess.run([python, "-c", TORCHRUN], cwd=self.dir, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=240)
        self.assertEqual(done.returncode, 0, done.stdout)
        e = self.only()
        self.assertEqual((e["num_commits"], e["params"], e["latest_commit"]["metrics"]), (1, {"ranks": 8}, {"rank": 0}))


if __name__ == "__main__":
    unittest.main()
