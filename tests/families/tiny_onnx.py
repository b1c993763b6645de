"""ONNX files of a few hundred bytes, written field by field: no package that writes them is needed."""

import struct
from math import prod

FLOAT, INT64, FLOAT16, DOUBLE = 1, 7, 10, 11
"""ONNX's numbers for kinds of numbers."""


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def message(*fields):
    """A protobuf message of pairs (number, value): whole numbers, texts, bytes and messages."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def constant(name, shape, values, kind=FLOAT):
    form = {FLOAT: "f", INT64: "q", FLOAT16: "e", DOUBLE: "d"}[kind]
    assert len(values) == prod(shape)
    dims = [(1, n) for n in shape]
    return message(*dims, (2, kind), (8, name), (9, struct.pack(f"<{len(values)}{form}", *values)))


def value(name, shape, kind=FLOAT):
    """An input or output; a name in its shape stands for any number."""
    dims = [(1, message((1, n) if isinstance(n, int) else (2, n))) for n in shape]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*dims)))))))


def node(kind, *names):
    """An operation on all of its names but the last, which is its result."""
    return message(*[(1, name) for name in names[:-1]], (2, names[-1]), (4, kind))


def model(nodes, constants, inputs, outputs):
    parts = [(1, each) for each in nodes] + [(2, "g")] + [(5, each) for each in constants]
    graph = message(*parts, *[(11, each) for each in inputs], *[(12, each) for each in outputs])
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 17))))


def ideal(channels=1, size=16, std=0.2, batch="batch", rows=-1, kind=FLOAT, labels=(), **inputs):
    """The clean data that is expected of a sample of ``N(mean, std^2)``: ``(std^2 x + mean s^2) / (std^2 + s^2)``.

    Its inputs are ``x``, ``sigma`` and, as the arguments say, others by their shapes, the first of which is the mean.
    ``labels`` names those that are whole numbers. Of other ``rows`` than -1 it cannot be run.
    """
    given = {"x": (batch, channels, size, size), "sigma": (batch,), **inputs}
    names = list(given)
    mean = names[2] if len(names) > 2 else "sigma"  # without an input for it the mean is 0
    nodes = [
        node("Mul", "sigma", "sigma", "square"),
        node("Reshape", "square", "column", "s"),
        node("Reshape", mean, "column", "m"),
        node("Mul", "m", "on" if len(names) > 2 else "off", "goal"),
        node("Mul", "goal", "s", "toward"),
        node("Mul", "x", "v", "kept"),
        node("Add", "kept", "toward", "above"),
        node("Add", "s", "v", "below"),
        node("Div", "above", "below", "denoised"),
    ]
    one = (1, 1, 1, 1)
    constants = [constant("column", (4,), [rows, 1, 1, 1], INT64)]
    constants += [constant(name, one, [x], kind) for name, x in (("v", std**2), ("on", 1.0), ("off", 0.0))]
    values = [value(name, shape, INT64 if name in labels else kind) for name, shape in given.items()]
    return model(nodes, constants, values, [value("denoised", given["x"], kind)])
