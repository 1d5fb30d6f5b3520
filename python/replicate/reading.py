"""Reads experiments and commits by running the command line with --json, so that scripts see what the terminal shows.

    for e in replicate.experiments.list(filter="val_acc > 0.9", sort="val_acc-desc"):
        print(e.id, e.params["learning_rate"], e.best.step)

Promises: times are aware datetimes; numbers come back as they were recorded; an error is an Error with the words of the
terminal. Each call that reads is one process of some ten milliseconds.
Refuses to know any rule: filters, order, best and names are the binary's.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import tempfile

from . import surroundings, values
from .recorder import Error, error, find_binary

KINDS = {2: "usage", 3: "not_found", 4: "ambiguous"}  # by exit code
SHOWN = 20  # rows of a list in a notebook


class Experiments:
    """The experiments of a storage; by default that of the current directory, as for the command line."""

    def __init__(self, storage: str | None = None):
        self._storage = storage

    def list(self, filter: str | None = None, sort: str | None = None) -> ExperimentList:
        """The experiments for which the query `filter` holds, oldest first unless `sort` names something else."""
        args = ["ls", "--json"]
        args += [] if filter is None else [f"--filter={filter}"]
        args += [] if sort is None else [f"--sort={sort}"]
        return ExperimentList(Experiment(self, known) for known in json.loads(self.run(*args)))

    def get(self, ref: str) -> Experiment | Commit:
        """What a unique prefix of an id, a name, "EXP@best", "EXP@latest", "EXP@12" or "@latest" stands for: an experiment or
        a commit. Raises NotFound or Ambiguous."""
        known = json.loads(self.run("show", "--json", ref))
        return Commit(self, known) if "experiment" in known else Experiment(self, known)

    def run(self, *args: str, stdout=subprocess.PIPE) -> bytes:
        """Runs a command and returns its output. Raises Error if it ends with one; passes on what else it says."""
        args = list(args)
        if self._storage is not None:
            args.insert(1, f"--storage-url={self._storage}")
        binary = find_binary()
        try:
            done = subprocess.run([binary, *args], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)
        except OSError as cause:
            raise error(f"start {binary}: {os.strerror(cause.errno).lower()}", "unavailable") from None
        said = done.stderr.decode(errors="replace")
        found = {}
        for line in said.splitlines():
            for level in ("error", "hint"):
                if line.startswith(f"replicate: {level}: "):
                    found[level] = line.partition(f"{level}: ")[2]
        if "error" in found:
            raise error(found["error"], KINDS.get(done.returncode, "internal"), found.get("hint", ""))
        if done.returncode not in (0, 1):  # 1 without an error: something damaged was left out, and said
            raise Error(f"{args[0]}: {os.path.basename(binary)} ended with {done.returncode}: {said.strip()}")
        if said and not surroundings.is_set("REPLICATE_QUIET"):
            sys.stderr.write(said)
        return done.stdout


def _fact(name: str, convert=values.read):
    """An attribute that the JSON has."""
    return property(lambda self: convert(self._fact(name)))


def _as_it_is(known):
    return known


class _Read:
    """What the binary has said of something. What it has not said yet is asked for when it is needed."""

    def __init__(self, experiments: Experiments, known: dict):
        self._experiments, self._known = experiments, known

    id = _fact("id", _as_it_is)
    created = _fact("created", values.when)

    def _fact(self, name: str):
        if name not in self._known:
            self._known.update(json.loads(self._experiments.run("show", "--json", self._known["id"])))
        return self._known.get(name)

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


class Commit(_Read):
    """A commit as it is stored."""

    step = _fact("step", _as_it_is)
    metrics = _fact("metrics")
    message = _fact("message", _as_it_is)

    @property
    def experiment(self) -> Experiment:
        """The experiment it belongs to."""
        return self._experiments.get(self._fact("experiment"))

    def open(self, path: str):
        """A file of the commit, as a seekable binary file that is gone when it is closed."""
        file = tempfile.TemporaryFile()
        try:
            self._experiments.run("cat", f"{self.id}:{os.fspath(path)}", stdout=file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def checkout(self, directory, path=None, force: bool = False) -> None:
        """Copies the files out, or only the file or directory at `path`. Files that differ are replaced only with force."""
        args = ["checkout", f"--output-directory={os.fspath(directory)}"]
        args += [] if path is None else [f"--path={os.fspath(path)}"]
        self._experiments.run(*args, *["--force"] * force, self.id)

    def __repr__(self) -> str:
        return f"<Commit {self.id[:7]} step {self.step}>"


class Experiment(_Read):
    """An experiment as it is stored."""

    name = _fact("name", _as_it_is)
    ended = _fact("ended", values.when)
    status = _fact("status", _as_it_is)
    exit_code = _fact("exit_code", _as_it_is)
    user = _fact("user", _as_it_is)
    host = _fact("host", _as_it_is)
    command = _fact("command", _as_it_is)
    params = _fact("params")
    tags = _fact("tags", _as_it_is)
    parent = _fact("parent", _as_it_is)
    num_commits = _fact("num_commits", _as_it_is)
    primary_metric = _fact("primary_metric", _as_it_is)
    metrics = _fact("metrics")  # {"loss": {"last": …, "best": …, "min": …, "max": …, "first": …}}
    git = _fact("git", _as_it_is)
    python = _fact("python", _as_it_is)
    machine = _fact("machine", _as_it_is)
    environment = _fact("environment")
    error = _fact("error", _as_it_is)

    def _commit(self, known) -> Commit | None:
        return None if known is None else Commit(self._experiments, known)

    @property
    def best(self) -> Commit | None:
        """The commit with the best value of the primary metric."""
        return self._commit(self._fact("best_commit"))

    @property
    def latest(self) -> Commit | None:
        """The newest commit."""
        return self._commit(self._fact("latest_commit"))

    @property
    def commits(self) -> list:
        """All commits, oldest first."""
        return [self._commit(known) for known in self._fact("commits")]

    def delete(self) -> None:
        """Deletes the experiment and its commits, as `replicate rm` does."""
        self._experiments.run("rm", "--force", self.id)

    def to_dataframe(self):
        """A pandas DataFrame with a row for each commit: id, step, created and the metrics."""
        return _dataframe([{"id": c.id, "step": c.step, "created": c.created, **c.metrics} for c in self.commits])

    def __repr__(self) -> str:
        return f"<Experiment {self.id[:7]} {self.status}>"


class ExperimentList(list):
    """A list of experiments."""

    def to_dataframe(self):
        """A pandas DataFrame with a row for each experiment: what it is, its metrics, its parameters.

        Metrics are the best value if the metric has a goal, else the last one. A parameter that is called as a column before
        it is in "param.NAME". So the names are those of filters.
        """
        rows = []
        for e in self:
            row = {name: getattr(e, name) for name in ("id", "name", "created", "ended", "status", "user", "host", "num_commits")}
            for name, points in e.metrics.items():
                row.setdefault(name, points["last"] if points["best"] is None else points["best"])
            for name, value in _joined(e.params):
                row[f"param.{name}" if name in row else name] = value
            rows.append(row)
        return _dataframe(rows)

    def _repr_html_(self) -> str:
        names = ("id", "name", "created", "status", "num_commits", "best")
        rows = [[e.id[:7], e.name or "", f"{e.created.astimezone():%Y-%m-%d %H:%M}", e.status, e.num_commits, e.best.id[:7] if e.best else ""]
                for e in self[-SHOWN:]]
        lines = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
        left = f"<p>{len(self) - SHOWN} older ones</p>" if len(self) > SHOWN else ""
        head = "".join(f"<th>{name}</th>" for name in names)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>{left}"


def _joined(params: dict, prefix: str = ""):
    """The parameters with the names that columns have: optimizer.lr."""
    for name, value in params.items():
        if isinstance(value, dict) and value:
            yield from _joined(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _dataframe(rows: list):
    try:
        import pandas
    except ImportError:
        raise ImportError("to_dataframe needs pandas, which is not installed") from None
    return pandas.DataFrame(rows)
