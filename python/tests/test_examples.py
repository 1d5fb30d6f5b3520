"""The examples run as they are, and show what they promise."""
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import unittest

import support

EXAMPLES = os.path.join(support.ROOT, "examples")


class Example(support.Lab):
    def copy(self, name):
        self.dir = os.path.join(self.top, name)
        shutil.copytree(os.path.join(EXAMPLES, name), self.dir)

    def run_example(self, *args, python=sys.executable):
        done = subprocess.run([python, *args], cwd=self.dir, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, done.stderr


class IrisTest(Example):
    def test_data(self):
        """Fisher's 150 flowers: means and deviations as published."""
        with open(os.path.join(EXAMPLES, "iris", "iris.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), 150)
        published = {  # mean and standard deviation of 50 flowers each, Fisher 1936
            "setosa": ((5.006, 3.428, 1.462, 0.246), (0.3525, 0.3791, 0.1737, 0.1054)),
            "versicolor": ((5.936, 2.770, 4.260, 1.326), (0.5162, 0.3138, 0.4699, 0.1978)),
            "virginica": ((6.588, 2.974, 5.552, 2.026), (0.6359, 0.3225, 0.5519, 0.2747)),
        }
        for species, (means, deviations) in published.items():
            for name, mean, deviation in zip(("sepal_length", "sepal_width", "petal_length", "petal_width"), means, deviations):
                column = [float(row[name]) for row in rows if row["species"] == species]
                self.assertEqual(len(column), 50)
                self.assertAlmostEqual(statistics.mean(column), mean, 3)
                self.assertAlmostEqual(statistics.stdev(column), deviation, 4)

    def test_train_and_predict(self):
        """Two runs differ, every epoch is a commit with its model, and the best one, copied out, names flowers."""
        self.copy("iris")
        self.run_example("train.py", "--learning_rate=0.01", "--num_epochs=20")
        _, err = self.run_example("train.py", "--learning_rate=0.2", "--num_epochs=20")
        self.assertRegex(err, r"finished after \d+ s, 20 commits, best loss 0\.\d+ at step \d+\n$")
        first, second = self.experiments()
        self.assertEqual((first["params"], second["params"]), ({"learning_rate": 0.01, "num_epochs": 20}, {"learning_rate": 0.2, "num_epochs": 20}))
        for e in (first, second):
            self.assertEqual((e["num_commits"], e["status"], e["primary_metric"]), (20, "finished", {"name": "loss", "goal": "minimize"}))
            self.assertEqual(e["metrics"]["loss"]["best"], e["metrics"]["loss"]["min"])
        self.assertLess(second["metrics"]["loss"]["best"], first["metrics"]["loss"]["best"])
        models = {self.replicate("cat", c["id"] + ":model.json") for c in self.commits(second["id"])}
        self.assertEqual(len(models), 20)
        out = os.path.join(self.top, "best")
        self.replicate("checkout", second["id"] + "@best", "-o", out)
        os.remove(self.path("model.json"))
        text, _ = self.run_example("predict.py", os.path.join(out, "model.json"))
        right = int(text.split()[0])
        self.assertRegex(text, r"^\d+ of 150 flowers named right\n$")
        self.assertGreater(right, 140)
        self.assertEqual(self.run_example("predict.py", os.path.join(out, "model.json"), "5.1", "3.5", "1.4", "0.2")[0], "setosa\n")


class TutorialTest(Example):
    def test_tutorial_of_2020(self):
        python = support.python_with(self, "torch", "sklearn")
        self.copy("2020")
        for learning_rate in (0.01, 0.2):
            self.run_example("train.py", f"--learning_rate={learning_rate}", python=python)
        lines = self.replicate("ls").splitlines()
        self.assertEqual(lines[0].split(), "EXPERIMENT STARTED STATUS LEARNING_RATE LATEST COMMIT LOSS BEST COMMIT LOSS".split())
        self.assertIn("0.1176", lines[1])  # the loss that the tutorial shows after 100 epochs at 0.01
        first, second = self.experiments()
        self.assertEqual(first["params"], {"learning_rate": 0.01, "num_epochs": 100})
        latest = first["latest_commit"]
        self.assertEqual((latest["step"], latest["metrics"]["accuracy"], type(latest["metrics"]["loss"])), (99, 1.0, float))
        self.assertRegex(self.replicate("show", first["id"]), r"99 .* 0\.1176")
        diff = self.replicate("diff", first["id"], second["id"])
        self.assertRegex(diff, r"learning_rate: +0\.01 +0\.2\n")
        self.assertRegex(diff, r"model\.pth: ")
        self.replicate("checkout", first["id"] + "@0", "-o", "out")
        accuracy = [sys.executable if python is None else python, "-c", "import torch; print(torch.load('out/model.pth')(torch.zeros(1, 4)).shape)"]
        self.assertEqual(subprocess.check_output(accuracy, cwd=self.dir, text=True), "torch.Size([1, 3])\n")


if __name__ == "__main__":
    unittest.main()
