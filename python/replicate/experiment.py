"""An experiment that is being recorded, and what people see of it on stderr.

Promises: nothing here raises unless REPLICATE_STRICT=1; any thread and any signal handler may call; a forked child, another
rank and a pickled copy have objects that do nothing.
Refuses to know how lines travel (recorder), how values look (values) and how the process ends (endings).
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from time import monotonic, time

from . import endings, surroundings, values
from .recorder import Error, ok

WARN_EVERY = 60.0  # seconds between two warnings that differ in numbers only
EXIT_WAIT = 5.0    # seconds that the end waits for an upload
END_WAIT = 20.0    # seconds beside that until a silent recorder is left alone: a snapshot may be under way
SHOWN = 3          # things left out that are named


class Commit:
    """A snapshot of the files plus metrics. `id` is "" if it was not captured, or is not yet."""

    def __init__(self, step, metrics: dict):
        self.id, self.step, self.metrics = "", step, metrics
        self.created = datetime.now(timezone.utc)

    def __repr__(self) -> str:
        return f"<Commit {self.id[:7] or 'not saved,'} step {self.step}>"


class Experiment:
    """This run: `id name created params status`. Whatever replicate.experiments.get(id) has is an attribute too."""

    def __init__(self, recorder=None, name=None, params=None, notes=()):
        started = recorder.started if recorder else {}
        self.id = started.get("experiment", "")
        self.name, self.params = name, params
        self.created = values.when(started.get("created"))
        self.status = "running" if recorder else "disabled"
        self._storage = started.get("storage")
        self._recorder, self._pid, self._began = recorder, os.getpid(), monotonic()
        self._metric = started.get("metric")
        self._commits, self._best = 0, None
        self._ending = False  # an end was asked for, and perhaps interrupted
        self._warned = {}  # text without its numbers -> when
        if recorder:
            self._say(_beginning(started))
        self._tell(notes)

    def log(self, *given, step=None, **metrics) -> None:
        """Records metrics at a step, by default the one after the last. Never waits for anything but the value itself:
        one on a GPU waits for the device.

        Positional arguments may stand for the step (a number) and the metrics (a mapping).
        """
        if self._idle("log"):
            return
        try:
            notes = []
            if given or step is not None and type(step) is not int:
                step, _, metrics = _arguments(given, step, None, metrics, notes)
            wire = values.metrics(metrics, notes)
            self._recorder.post({"op": "log", "step": step, "time": time(), "metrics": wire}, point=True)
            if notes or self._recorder.notes:
                self._tell(notes)
        except Exception as problem:
            self._trouble(problem)

    def commit(self, *given, step=None, path=None, message=None, **metrics) -> Commit:
        """Saves a complete snapshot of the files, and metrics; returns when both are safe on local disk.

        With path, a path or a list of them, only these are looked at again: all else is as in the commit before. Positional
        arguments may stand for the step (a number), the metrics (a mapping) and the path (a text or Path).
        """
        commit, notes = Commit(None, {}), []
        try:
            step, path, metrics = _arguments(given, step, path, metrics, notes)
            wire = values.metrics(metrics, notes)
            commit.step, commit.metrics = step, values.read(wire)
            if not self._idle("commit"):
                answer = self._recorder.ask(
                    {"op": "commit", "step": step, "time": time(), "metrics": wire, "path": paths(path),
                     "message": None if message is None else str(message), "modules": surroundings.new_modules(),
                     "cells": surroundings.cells()}, then=lambda answer: self._captured(commit, answer))
                self._tell(notes)
                self._check(answer)
        except Exception as problem:
            self._trouble(problem)
        return commit

    def checkpoint(self, path=None, step=None, metrics=None, quiet=None, primary_metric=None) -> Commit:
        """What commit was called for a while. Without path it saves the metrics and no new files."""
        if primary_metric is not None:
            self._prefer(primary_metric)
        return self.commit(metrics or {}, step=step, path=[] if path is None else path)

    def tag(self, *names) -> None:
        """Adds tags."""
        self._set(tags=words(names))

    def note(self, text) -> None:
        """Sets the note."""
        self._set(note=str(text))

    def stop(self, status=None) -> None:
        """Ends the experiment. Without it the end of the program does."""
        self.end({"status": status or "finished"})

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind, value, trace) -> None:
        self.end(endings.ending(kind, value, trace))

    def __repr__(self) -> str:
        return f"<Experiment {self.id[:7]} {self.status}>"

    def __reduce__(self):
        return _arrive, (self.id, self.name, self.params, self.created, self._storage)

    def __getattr__(self, name: str):
        """What can be read of every experiment: best, latest, commits, to_dataframe and so on."""
        if not name.startswith("_") and self.__dict__.get("id"):
            from . import reading
            if hasattr(reading.Experiment, name):
                return getattr(reading.Experiments(self._storage).get(self.id), name)
        raise AttributeError(f"experiment has no attribute {name!r}")

    def end(self, ending: dict, at_exit: bool = False, dying: bool = False) -> None:
        """Ends the experiment as ending says.

        at_exit: nothing else of this program is under way. dying: the signal handler that calls ends the process.
        """
        if self._recorder is None or self._recorder.gone or os.getpid() != self._pid:
            return
        recorder = self._recorder
        request = {"op": "end", **ending, "modules": surroundings.new_modules(), "wait": _exit_wait()}
        again, self._ending = self._ending, True
        problem, answer = None, None
        try:
            if at_exit:
                recorder.outermost()
            if dying and recorder.busy:
                recorder.last_words(request)
            else:
                answer = recorder.ask(request, patience=END_WAIT + request["wait"])
                if not again:  # else the first end counts, and this one is refused
                    self._check(answer)
            if answer is None and not dying and not recorder.gone:
                self._warn(f"the recorder does not answer and is left alone with experiment {self.id[:7]}")
            self.status = ending["status"]
        except Exception as error:
            problem = error
        self._tell(())
        if not problem and not recorder.gone:
            self._say(self._summary())
        recorder.close()
        if endings.current is self:
            endings.current = None
        if problem:
            self._trouble(problem)

    def forget(self):
        """In a forked child: leaves the experiment to the parent."""
        self._recorder.forget()

    def _idle(self, verb: str) -> bool:
        """Whether there is nobody to tell. Asked at every call, as C code forks without telling Python."""
        if self._recorder is not None and not self._recorder.gone and os.getpid() == self._pid:
            return False
        if self.status not in ("running", "disabled") and self._recorder is not None and os.getpid() == self._pid:
            self._warn(f"{verb} after the end of experiment {self.id[:7]}: not recorded")
        return True

    def _set(self, **what):
        if not self._idle("set"):
            try:
                self._recorder.post({"op": "set", **what})
                self._tell(())
            except Exception as problem:
                self._trouble(problem)

    def _prefer(self, metric):
        """The primary metric named during the run: the first one stays."""
        try:
            name, goal = metric
            if self._metric is None:
                self._metric = [str(name), str(goal)]
                self._set(metric=self._metric)
            elif self._metric[0] != name or _is_lower(self._metric) != _is_lower(metric):
                self._warn(f"the primary metric stays {self._metric[0]}, not {name}")
        except (TypeError, ValueError, AttributeError):
            self._warn(f"primary_metric {metric!r} is no pair like (\"loss\", \"minimize\")")

    def _captured(self, commit: Commit, answer: dict):
        """Takes the answer to a commit, whenever it comes, and keeps what the last message tells."""
        if not answer.get("commit"):
            return
        commit.id, commit.step = answer["commit"], answer.get("step")
        self._commits += 1
        value = commit.metrics.get(self._metric[0]) if self._metric else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
            if self._best is None or (value < self._best[0] if _is_lower(self._metric) else value > self._best[0]):
                self._best = value, commit.step

    def _summary(self) -> str:
        text = f"{self.id[:7]} {self.status} after {_duration(monotonic() - self._began)}, {_plural(self._commits, 'commit')}"
        if self._best:
            text += f", best {self._metric[0]} {_metric(self._best[0])} at step {self._best[1]}"
        return text

    def _check(self, answer):
        """Raises what the recorder has refused. No answer is no refusal: who has none has been told."""
        if answer is not None:
            ok(answer)
        elif surroundings.is_set("REPLICATE_STRICT") and self._recorder.gone:
            raise Error("the recorder is gone", "unavailable")

    def _trouble(self, problem: Exception):
        if surroundings.is_set("REPLICATE_STRICT"):
            raise problem
        if isinstance(problem, Error):
            self._warn(problem.message, problem.hint)
        else:
            self._warn(f"{type(problem).__name__}: {problem}")

    def _tell(self, notes):
        """Shows our own notes and those of the recorder. No lock is held here."""
        for note in notes:
            self._warn(note)
        while self._recorder and self._recorder.notes:
            try:
                line = self._recorder.notes.popleft()
            except IndexError:  # another thread shows them
                return
            if "warning" in line:
                self._warn(line["warning"], line.get("hint", ""))
            elif "note" in line:
                self._say(line["note"])

    def _warn(self, text: str, hint: str = ""):
        cause = text.partition(":")[0] + hint if hint else text  # what helps is the same: so is the cause
        now, cause = monotonic(), "".join(c for c in cause if not c.isdigit())
        if now - self._warned.get(cause, -WARN_EVERY) >= WARN_EVERY:
            self._warned[cause] = now
            self._say(f"warning: {text}" + (f"\nreplicate: hint: {hint}" if hint else ""))

    def _say(self, text: str):
        if not surroundings.is_set("REPLICATE_QUIET"):
            try:
                sys.stderr.write(f"replicate: {text}\n")
                sys.stderr.flush()
            except Exception:  # closed, None, or somebody's own
                pass


def words(given) -> list:
    """One text or several, as a list of texts."""
    return [str(given)] if isinstance(given, str) else [str(word) for word in given or ()]


def paths(given):
    """One path or several as absolute paths; None is None."""
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or hasattr(given, "__fspath__"):
        given = [given]
    return [os.path.abspath(os.fsdecode(path)) for path in given]


def _arguments(given, step, path, metrics: dict, notes: list):
    """Gives every positional argument of log and commit the meaning that its type has."""
    for argument in given:
        if isinstance(argument, Mapping):
            metrics = {**argument, **metrics}
        elif isinstance(argument, (str, bytes, list, tuple)) or hasattr(argument, "__fspath__"):
            path = argument
        elif argument is not None:
            step = argument
    if step is not None and type(step) is not int:
        try:
            step = operator.index(step)
        except TypeError:
            try:
                if int(step) != step:
                    raise ValueError
                step = int(step)
            except (TypeError, ValueError, OverflowError):
                notes.append(f"step {step!r} is no whole number: the next step is taken")
                step = None
    return step, path, metrics


def _arrive(id, name, params, created, storage):
    """Unpickles an experiment: as itself in the process that records it, else as one that can only be read."""
    current = endings.current
    if current is not None and current.id == id and current._pid == os.getpid():
        return current
    experiment = Experiment(name=name, params=params)
    experiment.id, experiment.created, experiment._storage = id, created, storage
    return experiment


def _is_lower(metric) -> bool:
    """Whether lower is better. The recorder knows the same spellings."""
    return metric[1].lower().startswith("min")


def _exit_wait() -> float:
    try:
        return float(os.environ["REPLICATE_EXIT_WAIT"])
    except (KeyError, ValueError):
        return EXIT_WAIT


def _beginning(started: dict) -> str:
    """The first line of a run: what was saved and what was left out."""
    text = f"experiment {started['experiment'][:7]}"
    if started.get("resumed"):
        return text + " goes on"
    text += f", {_plural(started.get('files', 0), 'file')} ({_size(started.get('bytes', 0))}) saved"
    left = sorted(started.get("left_out") or (), key=lambda entry: -entry.get("bytes", 0))
    shown = [_left_out(entry) for entry in left[:SHOWN]]
    if len(left) > SHOWN:
        shown.append(f"{len(left) - SHOWN} more")
    if shown:
        text += "; left out " + (", ".join(shown[:-1]) + " and " if len(shown) > 1 else "") + shown[-1]
    return text


def _left_out(entry: dict) -> str:
    size = ("more than " if entry.get("more") else "") + _size(entry.get("bytes", 0)) + ", "
    return f"{entry['path']} ({size if entry.get('bytes', 0) >= 1000 else ''}{entry['why'].partition(':')[0]})"


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _size(n: float) -> str:
    """Bytes as the command line prints them: 912 B, 2.1 kB, 46 MB."""
    if n < 1000:
        return f"{n} B"
    for unit in ("kB", "MB", "GB", "TB"):
        n /= 1000
        if n < 999.5:
            break
    return f"{n:.1f} {unit}" if n < 9.95 else f"{n:.0f} {unit}"


def _duration(seconds: float) -> str:
    """A duration in its two largest units, as the command line prints them."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    if s < 86400:
        return f"{s // 3600} h {s // 60 % 60} min"
    return f"{s // 86400} d {s // 3600 % 24} h"


def _metric(value) -> str:
    """Five significant digits, as the command line prints them."""
    return str(value) if isinstance(value, int) else f"{value:.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.5g}"
