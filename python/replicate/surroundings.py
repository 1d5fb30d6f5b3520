"""What this process is: its rank, its interpreter, its notebook, the modules it has imported.

Promises to import nothing and to ask only what is loaded already.
Refuses to know of experiments.
"""

from __future__ import annotations

import os
import sys

_reported = None  # names of modules when they were last told


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def is_first(notes: list) -> bool:
    """Whether this is the process of a distributed job that records. What was only guessed is told in notes."""
    environ = os.environ
    if "REPLICATE_RANK" in environ:
        return _number("REPLICATE_RANK") == 0
    if _number("WORLD_SIZE") > 1 and "RANK" in environ:
        return _number("RANK") == 0
    for variable in ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"):
        if variable in environ:
            return _number(variable) == 0
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    if _number("SLURM_STEP_NUM_TASKS") > 1 and _number("SLURM_PROCID") > 0:
        notes.append("this is task {} of a Slurm step and records nothing; REPLICATE_RANK=0 makes it an experiment of its own"
                     .format(environ["SLURM_PROCID"]))
        return False
    return True


def python() -> dict:
    """What the recorder needs to find the installed packages."""
    return {"version": ".".join(map(str, sys.version_info[:3])), "executable": sys.executable or "",
            "path": [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]}


def new_modules() -> list:
    """Top-level names of all imported modules, or [] if there are none that the last call did not tell."""
    global _reported
    names = {name.partition(".")[0] for name in tuple(sys.modules)}
    if names == _reported:
        return []
    _reported = names
    return sorted(names)


def cells() -> str | None:
    """The cells that were executed in this notebook, None outside of one: the file on disk is stale while they run."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if not shell:
        return None
    return "\n\n".join(f"# In[{number}]\n{cell}" for number, cell in enumerate(shell.user_ns.get("In", ())) if cell)


def _number(variable: str) -> int:
    try:
        return int(os.environ.get(variable, "0"))
    except ValueError:
        return 0
