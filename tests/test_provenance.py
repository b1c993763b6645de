"""A PNG file carries its settings as text: pixels stay, and a file from anywhere is answered by a sentence."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from iterinv.images import save
from iterinv.provenance import LONGEST, NoSettings, chunks, read_settings
from iterinv.reading.png import SIGNATURE, write_chunk
from iterinv.writing import write_png

SETTINGS = {"what": "a test", "prompt": "a “red” sphere \x1b[31m", "guidance": 1.5, "steps": [1, 2]}


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_settings_come_back_and_pixels_stay(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    save(pixels, tmp_path / "with.png", SETTINGS)
    save(pixels, tmp_path / "without.png")
    assert read_settings(tmp_path / "with.png") == SETTINGS
    image = Image.open(tmp_path / "with.png")
    assert (np.array(image) == pixels).all()
    assert json.loads(image.text["iterinv"]) == SETTINGS
    with pytest.raises(NoSettings, match="holds no settings"):
        read_settings(tmp_path / "without.png")
    plain = Image.open(tmp_path / "without.png")
    assert plain.tobytes() == image.tobytes()
    assert plain.info.get("icc_profile") == image.info.get("icc_profile")


def test_sixteen_bits_carry_settings_too(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (5, 7, 4), dtype=np.uint16)
    write_png(tmp_path / "a.png", values, chunks(SETTINGS))
    assert read_settings(tmp_path / "a.png") == SETTINGS


def test_numbers_that_json_lacks_and_bytes_that_are_no_text_are_written():
    ((kind, data),) = chunks({"psnr": float("inf"), "name": "\udcff.png", "size": np.int64(3)})
    assert kind == b"iTXt"
    assert json.loads(data.split(b"\0", 5)[5]) == {"psnr": None, "name": "\udcff.png", "size": 3}


def test_settings_that_are_too_long_lose_their_long_entries(tmp_path):
    save(np.zeros((4, 4), np.uint8), tmp_path / "a.png", {"what": "a sheet", "cells": ["x" * 100] * 20_000})
    assert read_settings(tmp_path / "a.png") == {"what": "a sheet", "left_out": ["cells"]}


def file_with(path, *texts):
    """Write a PNG of one pixel with text chunks (kind, data) before its data."""
    with open(path, "wb") as file:
        file.write(SIGNATURE)
        write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
        for kind, data in texts:
            write_chunk(file, kind, data)
        write_chunk(file, b"IDAT", zlib.compress(b"\0\0"))
        write_chunk(file, b"IEND", b"")
    return path


BOMB = zlib.compress(bytes(200 * LONGEST), 9)
HOSTILE = {
    "huge": ("at most are read", b"tEXt", b"iterinv\0" + b"x" * (LONGEST + 2000)),
    "bomb in zTXt": ("more than", b"zTXt", b"iterinv\0\0" + BOMB),
    "bomb in iTXt": ("more than", b"iTXt", b"iterinv\0\1\0\0\0" + BOMB),
    "damaged pack": ("damaged", b"zTXt", b"iterinv\0\0hello"),
    "cut pack": ("ends early", b"zTXt", b"iterinv\0\0" + zlib.compress(b"x" * 1000)[:-9]),
    "no JSON": ("are no JSON", b"tEXt", b"iterinv\0{'a': 1}"),
    "nothing": ("are no JSON", b"tEXt", b"iterinv\0"),
    "a list": ("no JSON object", b"tEXt", b"iterinv\0[1, 2]"),
    "deep": ("no JSON", b"tEXt", b"iterinv\0" + b"[" * 100_000),
    "deep object": ("at most 20 levels", b"tEXt", b'iterinv\0{"a": ' + b"[" * 200 + b"]" * 200 + b"}"),
    "no UTF-8": ("no UTF-8", b"iTXt", b"iterinv\0\0\0\0\0\xff\xfe"),
    "cut iTXt": ("are no JSON", b"iTXt", b"iterinv\0\0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_by_a_sentence(tmp_path, name):
    said, *chunk = HOSTILE[name]
    with pytest.raises(NoSettings, match=said):
        read_settings(file_with(tmp_path / "a.png", chunk))


def test_a_packed_text_of_another_program_is_read(tmp_path):
    other = b"tEXt", b"Comment\0hello"
    for kind, head in ((b"zTXt", b"iterinv\0\0"), (b"iTXt", b"iterinv\0\1\0en\0x\0")):
        path = file_with(tmp_path / "a.png", other, (kind, head + zlib.compress(b'{"what": "x"}')))
        assert read_settings(path) == {"what": "x"}


def test_a_damaged_or_cut_file_is_refused(tmp_path):
    path = file_with(tmp_path / "a.png", (b"tEXt", b'iterinv\0{"what": "x"}'))
    data = path.read_bytes()
    at = data.index(b"what")
    for changed in (data[:at] + b"W" + data[at + 1 :], data[: at + 3]):
        path.write_bytes(changed)
        with pytest.raises(NoSettings, match="checksum"):
            read_settings(path)
    path.write_bytes(SIGNATURE + struct.pack(">I4s", 2**32 - 1, b"tEXt") + b"Comment\0")
    with pytest.raises(NoSettings, match="holds no settings"):
        read_settings(path)
    path.write_bytes(b"hello")
    with pytest.raises(NoSettings, match="is no PNG file"):
        read_settings(path)
