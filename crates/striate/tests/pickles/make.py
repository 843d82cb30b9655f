"""Writes the pickles beside it: the book's dictionary of arrays as NumPy 1 and 2 write it, in every protocol.

    python make.py          once with NumPy 2, once with NumPy 1 (pip install "numpy<2")

All hold the same numbers: W1 float32, b1 float64, W2 float32 in Fortran order, b2 big-endian, W3 a slice with gaps, b3 as it
is; the shapes are those of the book's SimpleConvNet with 2 filters of 3x3 for images of 6x6, 3 hidden neurons and 2 classes.
"""

import collections
import pathlib
import pickle

import numpy

HERE = pathlib.Path(__file__).parent


def ramp(*shape):
    """-1, -0.875, -0.75, ...: exact in every type."""
    return (numpy.arange(numpy.prod(shape)) / 8 - 1).reshape(shape)


params = {}
params["W1"] = ramp(2, 1, 3, 3).astype("f4")
params["b1"] = ramp(2)
params["W2"] = numpy.asfortranarray(ramp(8, 3).astype("f4"))
params["b2"] = ramp(3).astype(">f4")
params["W3"] = ramp(3, 4).astype("f4")[:, ::2]
params["b3"] = ramp(2).astype("f4")

major = numpy.__version__.split(".")[0]
for protocol in range(6):
    with open(HERE / f"numpy{major}-protocol{protocol}.pkl", "wb") as f:
        pickle.dump(params, f, protocol)
with open(HERE / f"numpy{major}-ordered.pkl", "wb") as f:
    pickle.dump(collections.OrderedDict(params), f, 2)
