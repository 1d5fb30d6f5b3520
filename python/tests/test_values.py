"""Every row of the table of values, without any package that is not Python's own. arrays.py has the rest."""
import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import os
import pathlib
import subprocess
import types
import typing
import unittest
import uuid

import support
from replicate import values


def convert(value):
    """The wire form of one parameter, and the notes."""
    notes = []
    return values.params({"x": value}, {}, notes)["x"], notes


class Color(enum.Enum):
    RED = "red"
    DEEP = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Mode(str, enum.Enum):
    FAST = "fast"


class Text(str):
    def __str__(self):
        return "overridden"


class Number(int):
    def __int__(self):
        raise RuntimeError("overridden")


class Real(float):
    def __float__(self):
        raise RuntimeError("overridden")


@dataclasses.dataclass
class Optimizer:
    name: str = "adam"
    betas: tuple = (0.9, 0.999)


class Pair(typing.NamedTuple):
    left: int
    right: float


class Pydantic:
    def model_dump(self):
        return {"lr": 0.1, "nested": {"a": None}}


class HuggingFace:
    def to_dict(self):
        return {"hidden_size": 768}


class AbslFlags:
    def flag_values_dict(self):
        return {"lr": 0.1}

    def __getattr__(self, name):
        raise KeyError(name)


class Plain:
    def __init__(self):
        self.lr, self._private = 0.1, 1


class Bare:
    """No attributes and the default repr."""


class Raising:
    def __repr__(self):
        raise RuntimeError("no repr")


class Interrupting:
    def __repr__(self):
        raise KeyboardInterrupt


class AnythingGoes:
    """Has every attribute one asks for, as mocks and some configurations do."""

    def __getattr__(self, name):
        return AnythingGoes()

    def __repr__(self):
        return "<anything>"


class Words(collections.UserDict):
    pass


def function():
    pass


class ValuesTest(unittest.TestCase):
    TABLE = [
        ("bool", True, True), ("int", 7, 7), ("negative", -7, -7), ("float", 0.1, 0.1), ("text", "adam", "adam"), ("none", None, None),
        ("2^53+1", 2 ** 53 + 1, 2 ** 53 + 1), ("big int", 10 ** 4299, 10 ** 4299), ("beyond 4300 digits", 10 ** 4300, hex(10 ** 4300)),
        ("nan", math.nan, "NaN"), ("inf", math.inf, "Infinity"), ("-inf", -math.inf, "-Infinity"),
        ("word NaN", "NaN", "\\NaN"), ("word with backslashes", "\\\\Infinity", "\\\\\\Infinity"), ("no word", "\\nan", "\\nan"),
        ("enum", Color.RED, "red"), ("enum of a tuple", Color.DEEP, [1, 2]), ("int enum", Level.HIGH, 3), ("text enum", Mode.FAST, "fast"),
        ("text subclass", Text("real"), "real"), ("int subclass", Number(5), 5), ("float subclass", Real(0.5), 0.5),
        ("path", pathlib.Path("/a/b"), "/a/b"),
        ("datetime", datetime.datetime(2026, 11, 24, 10, 0, tzinfo=datetime.timezone.utc), "2026-11-24T10:00:00+00:00"),
        ("date", datetime.date(2026, 11, 24), "2026-11-24"), ("time", datetime.time(10, 5), "10:05:00"),
        ("timedelta", datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        ("decimal", decimal.Decimal("0.1"), 0.1), ("whole decimal", decimal.Decimal("5E+2"), 500), ("decimal nan", decimal.Decimal("NaN"), "\\NaN"),
        ("huge decimal", decimal.Decimal("1E+999999"), "Infinity"),
        ("fraction", fractions.Fraction(1, 3), "1/3"), ("uuid", uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("complex", 1 + 2j, "(1+2j)"), ("bytes", b"x" * 128, "128 bytes"), ("bytearray", bytearray(3), "3 bytes"),
        ("memoryview", memoryview(b"1234"), "4 bytes"),
        ("dict", {"a": {"b": 1}}, {"a": {"b": 1}}), ("other mapping", Words(a=1), {"a": 1}),
        ("mapping proxy", types.MappingProxyType({"a": 1}), {"a": 1}),
        ("namespace", argparse.Namespace(lr=0.1), {"lr": 0.1}), ("simple namespace", types.SimpleNamespace(lr=0.1), {"lr": 0.1}),
        ("dataclass", Optimizer(), {"name": "adam", "betas": [0.9, 0.999]}), ("named tuple", Pair(1, 2.5), {"left": 1, "right": 2.5}),
        ("pydantic", Pydantic(), {"lr": 0.1, "nested": {"a": None}}), ("hugging face", HuggingFace(), {"hidden_size": 768}),
        ("absl", AbslFlags(), {"lr": 0.1}), ("plain object", Plain(), {"lr": 0.1}),
        ("list", [1, [2.0, None]], [1, [2.0, None]]), ("tuple", (1, "a"), [1, "a"]), ("empty", [], []), ("empty dict", {}, {}),
        ("set", {3, 1, 2}, [1, 2, 3]), ("mixed set", frozenset({"b", 1, None}), ["b", 1, None]),
        ("class", Optimizer, f"{__name__}.Optimizer"), ("builtin class", int, "int"), ("function", function, f"{__name__}.function"),
        ("builtin function", len, "len"), ("method", Plain().__init__, f"{__name__}.Plain.__init__"), ("module", os.path, os.path.__name__),
        ("ellipsis", ..., "Ellipsis"), ("range", range(3), "range(0, 3)"), ("object without address", Bare(), f"<{__name__}.Bare object>"),
        ("partial", functools.partial(int, base=2), "functools.partial(<class 'int'>, base=2)"), ("anything goes", AnythingGoes(), "<anything>"),
        ("keys", {1: "a", None: "b", 2.5: "c", Color.RED: "d", (1, 2): "e"}, {"1": "a", "None": "b", "2.5": "c", "red": "d", "(1, 2)": "e"}),
        ("lone surrogate", "a\ud800b", "a\ufffdb"), ("surrogate key", {"\udc80": 1}, {"\ufffd": 1}), ("emoji", "🙂é", "🙂é"),
    ]

    def test_table(self):
        for name, given, stored in self.TABLE:
            with self.subTest(name):
                wire, notes = convert(given)
                if isinstance(stored, list) and name == "mixed set":
                    wire, stored = sorted(wire, key=str), sorted(stored, key=str)
                self.assertEqual(wire, stored)
                self.assertIs(type(wire), type(stored))
                self.assertEqual(notes, [])
                json.loads(values.encode(wire))

    def test_negative_zero(self):
        self.assertEqual(values.encode(convert(-0.0)[0]), "-0.0")

    def test_floats_have_a_point_or_an_exponent(self):
        for value, text in ((1.0, "1.0"), (1e22, "1e+22"), (1e-5, "1e-05"), (1e16, "1e+16")):
            self.assertEqual(values.encode(value), text)

    def test_read_is_the_inverse(self):
        for value in (1, 1.0, "NaN", "\\NaN", "\\\\-Infinity", "nan", math.inf, -math.inf, None, True, [1, {"a": "Infinity"}], ""):
            self.assertEqual(values.read(json.loads(values.encode(convert(value)[0]))), value)
        self.assertTrue(math.isnan(values.read("NaN")))

    def test_cut_with_a_note(self):
        cycle = {"a": 1}
        cycle["self"] = cycle
        deep = leaf = {}
        for _ in range(30):
            leaf["d"] = {}
            leaf = leaf["d"]
        table = [("cycle", cycle, "contains itself"), ("depth", deep, "nested more than 20 deep"), ("text", "x" * 70000, "cut at 65536"),
                 ("repr", type("Long", (), {"__repr__": lambda self: "y" * 5000, "__slots__": ()})(), "cut at 1000"),
                 ("raising repr", Raising(), "could not be read: RuntimeError")]
        for name, given, note in table:
            with self.subTest(name):
                wire, notes = convert(given)
                self.assertLess(len(values.encode(wire)), 70000)
                self.assertEqual(len(notes), 1, notes)
                self.assertIn(note, notes[0])
        self.assertEqual(convert(Raising())[0], "<Raising>")
        self.assertEqual(convert(cycle)[0], {"a": 1, "self": "…"})
        shared = [1]
        self.assertEqual(convert([shared, shared]), ([[1], [1]], []))

    def test_a_bad_member_loses_only_itself(self):
        self.assertEqual(convert({"good": 1, "bad": Raising()})[0], {"good": 1, "bad": "<Raising>"})

    def test_ctrl_c_is_not_swallowed(self):
        with self.assertRaises(KeyboardInterrupt):
            convert(Interrupting())

    def test_params_from_anything(self):
        notes = []
        self.assertEqual(values.params(argparse.Namespace(lr=0.1, n=1), {"n": 2}, notes), {"lr": 0.1, "n": 2})
        self.assertEqual(values.params(None, {}, notes), {})
        self.assertEqual(notes, [])
        self.assertEqual(values.params([1], {}, notes), {"params": [1]})
        self.assertIn("list", notes[0])

    def test_large_params_warn(self):
        notes = []
        values.params({str(i): "x" * 60000 for i in range(20)}, {}, notes)
        self.assertEqual(len(notes), 1)
        self.assertIn("1.2 MB", notes[0])

    def test_metrics_are_flat(self):
        notes = []
        given = {"loss": 0.5, "train": {"loss": 1, "top": {"k": math.nan}}, "train/loss": 2.0, "empty": {}, "ok": True, "name": "a"}
        self.assertEqual(values.metrics(given, notes), {"loss": 0.5, "train/loss": 2.0, "train/top/k": "NaN", "empty": {}, "ok": True, "name": "a"})
        self.assertEqual(notes, [])

    def test_encoding_is_the_one_of_the_binary(self):
        """Without the recorder: a float that Python prints, Go reads and prints is the same text. The binary is asked in test_experiment."""
        for value in (5e-324, 1.7976931348623157e308, 0.1 + 0.2, 123456789012345680.0, 9007199254740993.0):
            self.assertEqual(float(values.encode(value)), value)

    def test_times(self):
        utc = datetime.timezone.utc
        for text, time in (("2026-11-24T10:00:00Z", datetime.datetime(2026, 11, 24, 10, tzinfo=utc)),
                           ("2026-11-24T10:00:00.123456789Z", datetime.datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=utc)),
                           ("2026-11-24T10:00:00.5+01:00", datetime.datetime(2026, 11, 24, 9, 0, 0, 500000, tzinfo=utc)), (None, None)):
            self.assertEqual(values.when(text), time)


class ArraysTest(unittest.TestCase):
    def test_arrays_and_tensors(self):
        python = support.python_with(self, "numpy", "torch", "pandas", "attr")
        done = subprocess.run([python, "-m", "unittest", "arrays"], cwd=support.HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"Ran \d\d tests")


if __name__ == "__main__":
    unittest.main()
