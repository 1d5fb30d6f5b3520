"""Sees how this process ends and tells the experiment: at exit, by an exception, by SIGTERM; and what a fork leaves behind.

Promises: other people's hooks and handlers keep working as if this were not here; a program ends as it would have.
Refuses to know what an end is made of: the experiment does.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TRACEBACK_LIMIT = 8000  # characters, the last ones

current = None    # the experiment that this process records
_pending = None   # the ending that an uncaught exception has announced
_hooked = False
_previous = None  # sys.excepthook before us


def watch(experiment):
    """Makes experiment the current one."""
    global current, _hooked, _previous
    current = experiment
    if not _hooked:
        _hooked = True
        _previous, sys.excepthook = sys.excepthook, _on_exception
        atexit.register(_on_exit)
        os.register_at_fork(after_in_child=_in_child)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        try:
            signal.signal(signal.SIGTERM, _on_terminate)
        except ValueError:  # not the main thread: SIGTERM then kills without a word, and the recorder sees it
            pass


def ending(kind, value, trace) -> dict:
    """What an exception (three Nones: its absence) says about the end of a run."""
    if kind is None:
        return {"status": "finished"}
    if issubclass(kind, KeyboardInterrupt):
        return {"status": "interrupted"}
    if issubclass(kind, SystemExit):
        code = value.code if value.code is None or isinstance(value.code, int) else 1
        return {"status": "failed", "exit_code": int(code)} if code else {"status": "finished"}
    import traceback  # takes longer to import than all of this package
    try:
        text = "".join(traceback.format_exception(kind, value, trace))
    except Exception as error:
        text = f"{kind.__name__}, whose traceback could not be printed: {type(error).__name__}"
    return {"status": "failed", "traceback": text[-TRACEBACK_LIMIT:]}


def _on_exception(kind, value, trace):
    global _pending
    try:
        if current is not None:
            _pending = ending(kind, value, trace)
    finally:
        _previous(kind, value, trace)


def _on_exit():
    if current is None:
        return
    try:
        current.end(_pending or {"status": "finished"}, at_exit=True)
    except KeyboardInterrupt:
        pass  # it ends the wait; the uploader goes on


def _on_terminate(number, frame):
    signal.signal(number, signal.SIG_DFL)
    try:
        if current is not None:
            current.end({"status": "terminated"}, dying=True)
    finally:
        os.kill(os.getpid(), number)


def _in_child():
    global current
    if current is not None:
        current.forget()
        current = None
