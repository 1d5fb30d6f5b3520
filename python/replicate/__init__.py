"""Records machine-learning experiments: parameters, metrics, and a complete snapshot of the files at every commit.

    import replicate
    experiment = replicate.init(learning_rate=0.01)
    for epoch in range(100):
        ...
        experiment.commit(step=epoch, loss=loss)

Promises: `init` may raise, nothing after it does unless REPLICATE_STRICT=1; `log` never waits; `commit` returns when the
snapshot is safe on local disk; the import is cheap and needs no other package. REPLICATE_QUIET=1 silences it and
REPLICATE_DISABLE=1 makes all of it do nothing.
Refuses to know of storage, files, git and packages: the recorder, a process of the replicate binary, does all the work.
"""

from __future__ import annotations

import os
import sys

from . import endings, experiment, surroundings, values
from .experiment import Commit, Experiment
from .recorder import Ambiguous, Error, NotFound, Recorder

__version__ = "0.1.0"
__all__ = ["Ambiguous", "Commit", "Error", "Experiment", "NotFound", "experiments", "init"]


def init(params=None, *, name=None, tags=(), path=None, metric=None, resume=None, parent=None, **more) -> Experiment:
    """Starts to record this run. Keywords that are not named here are parameters.

    1. params: a mapping, Namespace, dataclass or nearly anything else that has members; keywords are added to it and win.
    2. path: what commits save, a path or a list of paths; None is the whole project, [] is nothing.
    3. metric: the primary metric and its goal, as ("val_loss", "minimize").
    4. resume: an id goes on with that experiment; True with the newest one of this command that is not finished.
    5. parent: the commit this run starts from; None is the one that was last checked out here.

    An experiment that this process still records is ended first. Raises Error if nothing can be recorded here. In a process
    that is not the first of a distributed job, and with REPLICATE_DISABLE=1, the experiment does nothing.
    """
    for ignored in ("quiet", "disable_heartbeat"):  # scripts of 2020 have them
        more.pop(ignored, None)
    notes = []
    wire = values.params(params, more, notes)
    if surroundings.is_set("REPLICATE_DISABLE") or not surroundings.is_first(notes):
        return Experiment(name=name, params=values.read(wire), notes=notes)
    if endings.current is not None:
        endings.current.stop()
    recorder = Recorder({
        "params": wire, "name": None if name is None else str(name), "tags": experiment.words(tags), "path": experiment.paths(path), "metric": metric,
        "resume": getattr(resume, "id", resume), "parent": getattr(parent, "id", parent), "cwd": os.getcwd(),
        "argv": list(getattr(sys, "orig_argv", sys.argv)), "env": dict(os.environ), "python": surroundings.python()})
    running = Experiment(recorder, name, values.read(wire), notes=notes)
    endings.watch(running)
    return running


def __getattr__(name: str):
    """`experiments` is what reads; it is loaded when it is used."""
    if name != "experiments":
        raise AttributeError(f"module 'replicate' has no attribute {name!r}")
    from .reading import Experiments
    globals()[name] = Experiments()
    return globals()[name]
