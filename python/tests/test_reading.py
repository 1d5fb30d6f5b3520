"""Reading what was recorded: by the package, as the terminal shows it."""
import os
import shutil
import sys
import tempfile
import unittest

import support

RECORD = """
import replicate
for lr in (0.1, 0.2, 0.3):
    with replicate.init({"lr": lr, "optimizer": {"name": "adam"}, "nan": float("nan")}, name=f"run{lr}", metric=("loss", "minimize")) as experiment:
        for step in range(3):
            with open("weights", "w") as f: f.write(f"{lr} {step}")
            experiment.commit(step=step, message=f"step {step}", loss=abs(step - 1) + lr, accuracy=step)
"""


class ReadingTest(support.Lab):
    recorded = None  # a copy of the project after RECORD

    def setUp(self):
        super().setUp()
        if ReadingTest.recorded is None:
            self.run_script(RECORD)
            ReadingTest.recorded = os.path.join(tempfile.mkdtemp(prefix="replicate-test-"), "project")
            self.addClassCleanup(shutil.rmtree, os.path.dirname(ReadingTest.recorded))
            shutil.copytree(self.dir, ReadingTest.recorded)
        else:
            shutil.rmtree(self.dir)
            shutil.copytree(ReadingTest.recorded, self.dir)

    def ask(self, script, **options):
        """Runs a script that reads; returns the lines it prints."""
        return self.run_script("import replicate\nexperiments = replicate.experiments\n" + script, **options)[0].splitlines()

    def test_list(self):
        self.assertEqual(self.ask("""
for e in experiments.list(): print(e.name, e.status, e.params["lr"], e.best.step, e.latest.step, len(e.commits), e.num_commits)
print([e.name for e in experiments.list(filter="lr > 0.1 and not lr = 0.3")])
print([e.name for e in experiments.list(sort="lr-desc")])
print(experiments.list(filter="lr > 1"))
"""), ["run0.1 finished 0.1 1 2 3 3", "run0.2 finished 0.2 1 2 3 3", "run0.3 finished 0.3 1 2 3 3", "['run0.2']", "['run0.3', 'run0.2', 'run0.1']", "[]"])

    def test_get(self):
        self.assertEqual(self.ask("""
e = experiments.get("run0.2")
assert e == experiments.get(e.id) == experiments.get(e.id[:9]) and e != experiments.get("run0.1")
assert len({e, experiments.get(e.id)}) == 1
c = experiments.get("run0.2@best")
assert c == e.best == experiments.get(c.id) and c.experiment == e
print(c.step, c.metrics, c.message, experiments.get("run0.2@2").step, experiments.get("@latest").name)
print(e.created.tzinfo, e.created < c.created < e.ended)
print(e.params, e.primary_metric, e.metrics["loss"]["best"], e.tags, e.parent)
print(e.command[-1], e.user != "", e.host != "", e.python["version"], e.error, e.exit_code)
"""), ["1 {'loss': 0.2, 'accuracy': 1} step 1 2 run0.3", "UTC True",
            "{'lr': 0.2, 'optimizer': {'name': 'adam'}, 'nan': nan} {'name': 'loss', 'goal': 'minimize'} 0.2 [] None",
            "train.py True True " + ".".join(map(str, sys.version_info[:3])) + " None None"])

    def test_errors(self):
        self.assertEqual(self.ask("""
with replicate.init() as experiment:
    letters = [experiment.commit().id[0] for _ in range(17)]
shared = next(letter for letter in letters if letters.count(letter) > 1)
for ask in (lambda: experiments.get("nowhere"), lambda: experiments.get(shared), lambda: experiments.list(filter="lr >"),
            lambda: experiments.list(sort="los"), lambda: experiments.get("@latest").latest.open("no/file"),
            lambda: replicate.experiments.get("run0.1").nothing):
    try:
        ask()
    except replicate.Error as error:
        print(type(error).__name__, error.kind, bool(error.message), not error.message.startswith("replicate"))
    except AttributeError as error:
        print("AttributeError")
try:
    experiments.get("a b")
except LookupError: print("no")
except replicate.NotFound as error: print(str(error).splitlines()[0] == error.message)
"""), ["NotFound not_found True True", "Ambiguous ambiguous True True", "Error usage True True", "Error usage True True",
            "NotFound not_found True True", "AttributeError", "True"])

    def test_open_is_seekable(self):
        self.assertEqual(self.ask("""
c = experiments.get("run0.1").latest
with c.open("weights") as f:
    print(f.read(), f.seek(0), f.read(3), f.seekable())
"""), ["b'0.1 2' 0 b'0.1' True"])

    def test_torch_load(self):
        python = support.python_with(self, "torch")
        self.assertEqual(self.ask("""
import torch
torch.save({"w": torch.ones(2)}, "model.pt")
experiment = replicate.init()
experiment.commit()
experiment.stop()
print(torch.load(experiments.get(experiment.id).latest.open("model.pt"))["w"].tolist())
""", python=python), ["[1.0, 1.0]"])

    def test_checkout(self):
        lines = self.ask("""
c = experiments.get("run0.1@0")
c.checkout("out")
print(open("out/weights").read())
open("out/weights", "w").write("mine")
try:
    c.checkout("out")
except replicate.Error as error:
    print(error.kind)
print(open("out/weights").read())
c.checkout("out", force=True)
print(open("out/weights").read())
c.checkout("part", path="weights")
import os
print(sorted(name for name in os.listdir("part") if name != ".replicate"))
""")
        self.assertEqual(lines[:1] + lines[-3:], ["0.1 0", "mine", "0.1 0", "['weights']"])

    def test_delete(self):
        self.assertEqual(self.ask("experiments.get('run0.2').delete(); print([e.name for e in experiments.list()])"), ["['run0.1', 'run0.3']"])

    def test_of_a_live_experiment(self):
        self.assertEqual(self.ask("""
import os
experiment = replicate.init(metric=("loss", "minimize"))
for loss in (2.0, 1.0, 3.0): experiment.commit(loss=loss)
os.chdir("/")
print(experiment.best.step, experiment.latest.step, len(experiment.commits), experiment.user != "")
print(hasattr(experiment, "shape"), hasattr(experiment, "_repr_html_"))
"""), ["1 2 3 True", "False False"])

    def test_dataframes(self):
        python = support.python_with(self, "pandas")
        self.assertEqual(self.ask("""
frame = experiments.list().to_dataframe()
print(list(frame.columns))
print(frame[["name", "lr", "optimizer.name", "loss", "accuracy"]].values.tolist())
print(frame["created"].dt.tz, frame["num_commits"].sum())
frame = experiments.get("run0.1").to_dataframe()
print(list(frame.columns), frame[["step", "loss"]].values.tolist())
print(len(experiments.list(filter="lr > 1").to_dataframe()))
""", python=python), [
            "['id', 'name', 'created', 'ended', 'status', 'user', 'host', 'num_commits', 'accuracy', 'loss', 'lr', 'optimizer.name', 'nan']",
            "[['run0.1', 0.1, 'adam', 0.1, 2], ['run0.2', 0.2, 'adam', 0.2, 2], ['run0.3', 0.3, 'adam', 0.3, 2]]", "UTC 9",
            "['id', 'step', 'created', 'loss', 'accuracy'] [[0.0, 1.1], [1.0, 0.1], [2.0, 1.1]]", "0"])

    def test_without_pandas(self):
        self.assertEqual(self.ask("""
import sys
sys.modules["pandas"] = None
try:
    experiments.list().to_dataframe()
except ImportError as error:
    print(error)
"""), ["to_dataframe needs pandas, which is not installed"])

    def test_html(self):
        html = "".join(self.ask("""
replicate.init(name="<script>").stop()
print(experiments.list()._repr_html_())
"""))
        self.assertEqual(html.count("<tr>"), 5)
        self.assertIn("&lt;script&gt;", html)
        self.assertNotIn("<script>", html)

    def test_from_another_directory(self):
        self.assertEqual(self.ask("""
import os
os.makedirs("a/b"); os.chdir("a/b")
print(len(experiments.list()))
"""), ["3"])

    def test_what_the_terminal_says_is_passed_on(self):
        _, err = self.run_script("import replicate; replicate.experiments.list(filter='name = x').append(1)")
        self.assertNotIn("Traceback", err)

    def test_no_repository(self):
        self.dir = os.path.join(self.top, "empty")
        os.mkdir(self.dir)
        self.write("replicate.yaml", "")
        self.assertEqual(self.ask("print(experiments.list(), type(experiments.list()).__name__)"), ["[] ExperimentList"])
        _, err = self.run_script("import replicate; replicate.experiments.get('x')", code=1)
        self.assertIn("replicate.NotFound: ", err)


if __name__ == "__main__":
    unittest.main()
