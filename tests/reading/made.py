"""These functions write files that no library here writes: PNGs of any chunks, and colour profiles (ICC.1:2001)."""

import struct
import zlib

import numpy as np
import pytest

from iterinv.images import BadPicture, read

D50 = (0.9642, 1.0, 0.8249)
CHROMATICITIES = {
    "sRGB": [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)],
    "P3": [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)],
    "Adobe": [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)],
    "2020": [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)],
}


def pixels(h=20, w=30, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (h, w, 3), dtype=dtype)


def png(rows, colour, bits=8, *chunks):
    """Make a PNG of packed rows (h, bytes); the chunks (kind, data) stand before its data."""
    width = len(rows[0]) * 8 // (bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour])
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return chunked((b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b""))


def chunked(*chunks):
    each = (struct.pack(">I4s", len(d), k) + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(each)


def rgb_png(picture, *chunks):
    return png(picture.reshape(len(picture), -1), 2, 8, *chunks)


def profile(space, tags, to=b"XYZ "):
    """Make a profile of a colour space from its tags."""
    tags = {b"desc": _desc("made here"), b"wtpt": _xyz(D50), b"cprt": b"text\0\0\0\0none\0", **tags}
    table, data = struct.pack(">I", len(tags)), b""
    for name, each in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(each))
        data += each + bytes(-len(each) % 4)
    kind = {b"CMYK": b"prtr"}.get(space, b"mntr")
    header = struct.pack(">I4sI4s4s4s", 132 + 12 * len(tags) + len(data), bytes(4), 0x02400000, kind, space, to)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3I", *(round(v * 65536) for v in D50)) + bytes(48)
    return header + table + data


def rgb_profile(primaries, gamma):
    columns = lights(CHROMATICITIES[primaries], D50)
    named = zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)
    curves = {name: _gamma(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", {name: _xyz(column) for name, column in named} | curves)


def grey_profile(gamma):
    return profile(b"GRAY", {b"kTRC": _gamma(gamma)})


def cmyk_profile(inks):
    """Make a profile with two levels per ink: ``inks`` gives Lab for (c, m, y, k) of zeros and ones."""
    corners = [inks(*(index >> shift & 1 for shift in (3, 2, 1, 0))) for index in range(16)]
    lut = b"".join(struct.pack(">BBB", round(c[0] * 2.55), round(c[1] + 128), round(c[2] + 128)) for c in corners)
    linear = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    return profile(b"CMYK", {b"A2B0": head + 4 * linear + lut + 3 * linear}, b"Lab ")


def lights(primaries, white=None):
    """Return the XYZ of the three lights, one per column: D65, adapted to another white by Bradford if one is given."""
    d65 = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    xyz = xyz * np.linalg.solve(xyz, d65)
    if white is None:
        return xyz
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return np.linalg.inv(cones) @ np.diag((cones @ white) / (cones @ d65)) @ cones @ xyz


def in_srgb(levels, primaries, decode):
    """Convert levels in [0, 1] of a space whose curve is ``decode`` to 8-bit sRGB, by the closed form."""
    light = decode(levels) @ (np.linalg.inv(lights(CHROMATICITIES["sRGB"])) @ lights(CHROMATICITIES[primaries])).T
    return np.rint(255 * encode(light.clip(0, 1)))


def encode(light):
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def decode(levels):
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def _xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _gamma(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _desc(text):
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text.encode() + b"\0" + bytes(78)


def refused(path, words="."):
    """Assert that reading a file gives the package's error, which names the file and has these words."""
    with pytest.raises(BadPicture, match=words) as error:
        read(path)
    assert str(path) in str(error.value)
