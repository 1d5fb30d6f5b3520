"""Turns what a script hands over into JSON that loses nothing, and back.

Promises: no value raises, none imports a third-party module, and the encoding is the one the recorder and `--json` use:
floats carry "." or "e", ints are digits, NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity", and a
real string made of backslashes and one of these words gets one more backslash in front.
Refuses to know of experiments, files and pipes. It runs user code (`repr`, `.item()`), so no lock may be held around it.
"""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from json import JSONEncoder

ARRAY_LIMIT = 64          # elements; a longer array in params is described, not listed
TEXT_LIMIT = 64 * 1024    # characters; longer texts are data, not parameters
REPR_LIMIT = 1000         # characters of the repr of an object nobody knows
DEPTH_LIMIT = 20          # the recorder reads 100
PARAMS_LIMIT = 1_000_000  # bytes of all parameters together before a warning: every listing reads them
INT_LIMIT = 10 ** 4300    # Python itself refuses to print or read longer ints

_SURROGATES = re.compile("[\ud800-\udfff]")
_TIME = re.compile(r"([^.Z+]{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$")
_WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

encode = JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def params(given, more: Mapping, notes: list) -> dict:
    """Parameters as JSON: `given` is any object that is a mapping by the rules below, `more` is added and wins.

    What was cut, dropped or guessed is appended to `notes`, a sentence each.
    """
    conversion = _Conversion("parameter", ".", notes)
    wire = {} if given is None else conversion.value(given, "", 0)
    if not isinstance(wire, dict):
        notes.append(f"params is no mapping but {type(given).__name__}: recorded as the parameter \"params\"")
        wire = {"params": wire}
    wire.update(conversion.value(more, "", 0))
    size = len(encode(wire))
    if size > PARAMS_LIMIT:
        notes.append(f"the parameters take {size / 1e6:.1f} MB: every listing reads them")
    return wire


def metrics(given: Mapping, notes: list) -> dict:
    """Metrics as JSON, flat: nested names are joined with "/". Arrays of more than one element are left out."""
    wire = {}
    conversion = None
    nested = False
    for name, value in given.items():
        kind = type(value)
        if type(name) is str and (kind is float and value - value == 0.0 or kind is int and -INT_LIMIT < value < INT_LIMIT):
            wire[name] = value  # nearly all of them
            continue
        conversion = conversion or _Conversion("metric", "/", notes)
        conversion.member(wire, name, value, "", 0)
        nested = nested or isinstance(wire.get(name), dict)
    return _flat(wire) if nested else wire


def read(wire):
    """The value that JSON from the recorder stands for."""
    if isinstance(wire, str):
        bare = wire.lstrip("\\")
        if bare not in _WORDS:
            return wire
        return _WORDS[wire] if bare == wire else wire[1:]
    if isinstance(wire, list):
        return [read(item) for item in wire]
    if isinstance(wire, dict):
        return {name: read(item) for name, item in wire.items()}
    return wire


def when(text: str | None):
    """The aware datetime of a RFC 3339 time with any number of decimals, None if there is none."""
    if not text:
        return None
    seconds, decimals, zone = _TIME.match(text).groups()
    return datetime.fromisoformat(f"{seconds}.{(decimals or '')[:6]:0<6}{'+00:00' if zone == 'Z' else zone}")


class _Large(Exception):
    """An array where only one number can stand."""


class _Conversion:
    """One walk over what was handed over. Names in notes are joined as the stored ones will be."""

    def __init__(self, noun: str, separator: str, notes: list):
        self.noun, self.separator, self.notes = noun, separator, notes
        self.inside = set()  # ids of the containers around the value: a cycle ends here

    def note(self, name: str, text: str):
        self.notes.append(f'{self.noun} "{name}": {text}')

    def value(self, value, name: str, depth: int):
        """The JSON of any object. Only _Large is raised, and only for metrics."""
        kind = type(value)
        if kind is float:
            return value if value - value == 0.0 else _word(value)
        if kind is int:
            return value if -INT_LIMIT < value < INT_LIMIT else self.text(hex(value), name)
        if kind is str:
            return self.text(value, name)
        if kind is bool or value is None:
            return value
        try:
            return self.object(value, name, depth)
        except _Large:
            raise
        except Exception as error:  # of user code: a property, a repr, a device that is gone
            self.note(name, f"{kind.__name__} could not be read: {type(error).__name__}")
            return f"<{kind.__name__}>"

    def object(self, value, name: str, depth: int):
        kind = type(value)
        if isinstance(value, Enum):
            return self.value(value.value, name, depth)
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            return self.container(value, name, depth)
        if hasattr(kind, "shape") and (hasattr(kind, "dtype") or hasattr(kind, "dtypes")):
            return self.array(value, name, depth)
        for basic in (str, int, float):  # subclasses; the unbound method ignores what they override
            if isinstance(value, basic):
                return self.value(_EXACT[basic](value), name, depth)
        for base in kind.__mro__:
            rule = _TEXTS.get(f"{base.__module__}.{base.__qualname__}")
            if rule:
                return self.value(rule(value), name, depth)
        if hasattr(kind, "__fspath__"):
            return self.text(os.fsdecode(os.fspath(value)), name)
        if isinstance(value, types.ModuleType):
            return value.__name__
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
            module = value.__module__
            return value.__qualname__ if module in (None, "builtins") else f"{module}.{value.__qualname__}"
        return self.container(value, name, depth)

    def container(self, value, name: str, depth: int):
        members = _members(value)
        if members is None and not isinstance(value, (list, tuple, set, frozenset)):
            return self.unknown(value, name)
        if id(value) in self.inside or depth >= DEPTH_LIMIT:
            self.note(name, "contains itself" if id(value) in self.inside else f"nested more than {DEPTH_LIMIT} deep")
            return "…"
        self.inside.add(id(value))
        try:
            if members is not None:
                wire = {}
                for key, item in members.items():
                    self.member(wire, key, item, name, depth)
                return wire
            wire = [self.value(item, name, depth + 1) for item in value]
        finally:
            self.inside.discard(id(value))
        return _sorted(wire) if isinstance(value, (set, frozenset)) else wire

    def member(self, wire: dict, key, item, name: str, depth: int):
        """Sets one member of a mapping, or leaves it out with a note if it is an array among metrics."""
        if type(key) is not str:
            key = _EXACT[str](key) if isinstance(key, str) else str(key.value if isinstance(key, Enum) else key)
        key = self.text(key, name, escape=False)
        name = f"{name}{self.separator}{key}" if name else key
        try:
            wire[key] = self.value(item, name, depth + 1)
        except _Large as large:
            self.note(name, f"left out, as {large} is not one value")

    def array(self, value, name: str, depth: int):
        """numpy, torch, jax, TensorFlow, pandas and all that look like them; on a GPU this waits for the device."""
        kind = type(value)
        shape = [int(n) for n in value.shape]
        size = 1
        for n in shape:
            size *= n
        plain = value.numpy() if hasattr(kind, "numpy") and not hasattr(kind, "item") else value
        dtype = getattr(value, "dtype", kind.__name__)
        if getattr(dtype, "kind", "") in ("m", "M"):
            plain = plain.astype(dtype.kind + "8[us]")  # the item of nanoseconds would be an int
        if size == 1 and hasattr(plain, "item"):
            item = plain.item()
            return self.value(float(item) if type(item) is kind else item, name, depth)  # numpy.longdouble is its own item
        described = f"{getattr(dtype, 'name', str(dtype).replace('torch.', ''))}{shape}"
        if self.noun == "metric":
            raise _Large(described)
        if size <= ARRAY_LIMIT and hasattr(plain, "tolist"):
            return self.value(plain.tolist(), name, depth)
        return described

    def text(self, text: str, name: str, escape: bool = True) -> str:
        if len(text) > TEXT_LIMIT:
            self.note(name, f"{len(text)} characters, cut at {TEXT_LIMIT}")
            text = text[:TEXT_LIMIT]
        if not text.isascii():
            text = _SURROGATES.sub("\ufffd", text)
        return "\\" + text if escape and text.lstrip("\\") in _WORDS else text

    def unknown(self, value, name: str) -> str:
        """The repr, without the address that would make every run differ."""
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
        if len(text) > REPR_LIMIT:
            self.note(name, f"repr of {type(value).__name__} cut at {REPR_LIMIT} characters")
        return self.text(text[:REPR_LIMIT], name)


def _members(value):
    """The members of an object that is a mapping in one of the many ways there are, or None."""
    kind = type(value)
    if kind.__module__.partition(".")[0] == "omegaconf":
        container = sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True)
        return container if isinstance(container, dict) else dict(enumerate(container))
    if isinstance(value, Mapping):
        return value
    for fields in ("__dataclass_fields__", "_fields"):  # dataclass, NamedTuple
        if hasattr(kind, fields):
            return {name: getattr(value, name, None) for name in getattr(kind, fields)}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name, None) for field in kind.__attrs_attrs__}
    for method in ("model_dump", "flag_values_dict", "to_dict"):  # pydantic, absl, Hugging Face
        if hasattr(kind, method):
            return getattr(value, method)()
    if isinstance(value, (list, tuple, set, frozenset)):
        return None
    return {name: item for name, item in getattr(value, "__dict__", {}).items() if not name.startswith("_")} or None


def _decimal(value):
    """A finite Decimal is a number: an int if it has no decimals and a sane size."""
    if not value.is_finite():
        return str(value)
    return int(value) if value.as_tuple().exponent >= 0 and value.adjusted() < 4300 else float(value)


def _word(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _sorted(wire: list) -> list:
    try:
        return sorted(wire)
    except TypeError:
        return sorted(wire, key=encode)


def _flat(wire: dict) -> dict:
    """Joins nested names with "/". A name that literally contains the joined name wins over a nested one."""
    flat, depths = {}, {}

    def add(prefix: str, members: dict, depth: int):
        for name, item in members.items():
            name = prefix + name
            if isinstance(item, dict) and item:
                add(name + "/", item, depth + 1)
            elif name not in depths or depth < depths[name]:
                flat[name], depths[name] = item, depth

    add("", wire, 0)
    return flat


_EXACT = {str: str.__str__, int: int.__int__, float: float.__float__}

_TEXTS = {  # by name, as importing these modules only to ask would cost more than the rest of the package
    "datetime.timedelta": lambda value: value.total_seconds(),
    "datetime.date": lambda value: value.isoformat(),
    "datetime.time": lambda value: value.isoformat(),
    "decimal.Decimal": _decimal,
    "fractions.Fraction": str,
    "uuid.UUID": str,
    "builtins.complex": str,
    "builtins.bytes": lambda value: f"{len(value)} bytes",
    "builtins.bytearray": lambda value: f"{len(value)} bytes",
    "builtins.memoryview": lambda value: f"{value.nbytes} bytes",
}
