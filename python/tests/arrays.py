"""The rows of the table of values that need numpy, torch, pandas and attrs. test_values runs it in a Python that has them."""
import datetime
import math
import types
import unittest

import attr
import numpy as np
import pandas as pd
import support  # finds the package
import torch
from replicate import values


def convert(value):
    notes = []
    return values.params({"x": value}, {}, notes)["x"], notes


def metric(value):
    notes = []
    return values.metrics({"x": value}, notes), notes


@attr.s
class Attrs:
    lr = attr.ib(default=0.1)
    sizes = attr.ib(default=(1, 2))


class TensorFlowTensor:
    """Looks like an eager tensor: no item, but numpy()."""

    def __init__(self, array):
        self._array = array

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: types.SimpleNamespace(name=str(self._array.dtype)))

    def numpy(self):
        return self._array if self._array.shape else self._array[()]


class Device:
    """A tensor on a device that is gone."""
    shape, dtype = (), "float32"

    def item(self):
        raise RuntimeError("CUDA error")


class ArraysTest(unittest.TestCase):
    def check(self, value, stored):
        wire, notes = convert(value)
        self.assertEqual(wire, stored)
        self.assertIs(type(wire), type(stored))
        self.assertEqual(notes, [])

    def test_numpy_scalars(self):
        self.check(np.float64(0.1), 0.1)
        self.check(np.float32(0.1), float(np.float32(0.1)))
        self.check(np.float16(0.5), 0.5)
        self.check(np.longdouble(0.5), 0.5)
        self.check(np.int64(2 ** 60), 2 ** 60)
        self.check(np.uint8(3), 3)
        self.check(np.bool_(True), True)
        self.check(np.str_("a"), "a")
        self.check(np.float64("nan"), "NaN")
        self.check(np.complex64(1j), "1j")

    def test_numpy_times(self):
        self.check(np.datetime64("2026-11-24T10:00:00.000000001", "ns"), "2026-11-24T10:00:00")
        self.check(np.timedelta64(1500, "ms"), 1.5)
        self.check(np.timedelta64(1500, "ns"), 0.000001)

    def test_arrays_of_one(self):
        self.check(np.array(3), 3)
        self.check(np.array([[0.5]]), 0.5)

    def test_torch_scalars(self):
        self.check(torch.tensor(0.1), float(np.float32(0.1)))
        self.check(torch.tensor(0.1, requires_grad=True), float(np.float32(0.1)))
        self.check(torch.nn.Parameter(torch.tensor([2.0])), 2.0)
        self.check(torch.tensor(3), 3)
        self.check(torch.tensor(True), True)
        self.check(torch.tensor(1.5, dtype=torch.bfloat16), 1.5)
        self.check(torch.tensor(math.inf), "Infinity")

    def test_small_arrays_are_lists(self):
        self.check(np.arange(3), [0, 1, 2])
        self.check(np.zeros((2, 2)), [[0.0, 0.0], [0.0, 0.0]])
        self.check(torch.ones(2), [1.0, 1.0])
        self.check(np.array([math.nan, 1.0]), ["NaN", 1.0])
        self.check(np.array([]), [])

    def test_large_arrays_are_described(self):
        self.check(np.zeros(65, dtype="float32"), "float32[65]")
        self.check(torch.zeros(128, 10), "float32[128, 10]")
        self.check(pd.DataFrame({"a": [1, 2]}), "DataFrame[2, 1]")
        self.check(pd.Series(range(100)), "int64[100]")

    def test_small_series(self):
        self.check(pd.Series([1, 2]), [1, 2])
        self.check(pd.Series([5]), 5)

    def test_pandas_scalars(self):
        self.check(pd.Timestamp("2026-11-24"), "2026-11-24T00:00:00")
        self.check(pd.Timedelta("90s"), 90.0)

    def test_torch_objects(self):
        self.check(torch.float32, "torch.float32")
        self.check(torch.nn.functional.relu, "torch.nn.functional.relu")
        self.check(torch.optim.Adam, "torch.optim.adam.Adam")
        self.check(torch.Size([1, 2]), [1, 2])

    def test_meta_tensors(self):
        wire, notes = convert(torch.zeros(1, device="meta"))
        self.assertIsInstance(wire, str)
        self.assertEqual(len(notes), 1)

    def test_tensorflow_likes(self):
        self.check(TensorFlowTensor(np.float32(0.5).reshape(())), 0.5)
        self.check(TensorFlowTensor(np.ones(2, dtype="float32")), [1.0, 1.0])
        self.check(TensorFlowTensor(np.ones(100, dtype="float32")), "float32[100]")

    def test_lost_device(self):
        self.assertEqual(convert(Device()), ("<Device>", ['parameter "x": Device could not be read: RuntimeError']))

    def test_attrs(self):
        self.check(Attrs(), {"lr": 0.1, "sizes": [1, 2]})

    def test_metrics(self):
        self.assertEqual(metric(torch.tensor(0.5)), ({"x": 0.5}, []))
        self.assertEqual(metric(np.float32(0.5)), ({"x": 0.5}, []))
        for array, name in ((np.zeros(2), "float64[2]"), (torch.zeros(3, 1), "float32[3, 1]"), (np.zeros(0), "float64[0]")):
            self.assertEqual(metric(array), ({}, [f'metric "x": left out, as {name} is not one value']))
        self.assertEqual(metric({"a": {"b": np.zeros(2), "c": 1}}), ({"x/a/c": 1}, ['metric "x/a/b": left out, as float64[2] is not one value']))
        self.assertEqual(metric([1, np.zeros(2)])[0], {})


if __name__ == "__main__":
    unittest.main()
