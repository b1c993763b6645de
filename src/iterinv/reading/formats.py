"""Files to PIL images by their first bytes; formats that are not read are refused by name."""

from __future__ import annotations

import importlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageFile

from iterinv.reading import png
from iterinv.reading.errors import BadPicture, Refused

READ = {
    png.SIGNATURE: "Png",
    b"\xff\xd8\xff": "Jpeg",
    b"GIF87a": "Gif",
    b"GIF89a": "Gif",
    b"BM": "Bmp",
    b"II*\0": "Tiff",
    b"MM\0*": "Tiff",
    b"II+\0": "Tiff",
    b"MM\0+": "Tiff",
    b"\0\0\1\0": "Ico",
    b"icns": "Icns",
    b"\0\0\0\x0cjP  ": "Jpeg2K",
    b"\xff\x4f\xff\x51": "Jpeg2K",
    b"qoif": "Qoi",
    b"8BPS": "Psd",
    b"DDS ": "Dds",
    b"\x01\xda": "Sgi",
    b"Pf": "Ppm",
    **{b"P%d" % k: "Ppm" for k in range(1, 7)},
}
"""Pillow's plugins, by the first bytes of a file."""

READ_IN_BLOCKS = {"Bmp", "Gif", "Jpeg", "Pcx", "Tga", "Tiff"}
"""Plugins that ask for nothing behind the end of a whole file."""

BY_SUFFIX = {".tga": "Tga", ".pcx": "Pcx"}
"""Plugins of formats whose first bytes say too little."""

NOT_READ = {
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"%PDF": "a PDF file",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"v/1\x01": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance file",
    b"#?RGBE": "a Radiance file",
    b"FUJIFILMCCD-RAW": "a raw file of a camera",
    b"IIU\0": "a raw file of a camera",
    b"IIRO": "a raw file of a camera",
    b"gimp xcf": "a GIMP file",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"PK\3\4": "a ZIP archive",
    b"\x1aE\xdf\xa3": "a video",
    b"\x93NUMPY": "a numpy array",
}
"""Names of formats that are not read, by the first bytes of their files."""

RAW = {".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".sr2", ".srf", ".srw"}
"""Suffixes of cameras' raw files that look like TIFF, whose first picture is a thumbnail."""

SAVE = "which is not read here; save it as PNG or JPEG"
MEBI = 1 << 20
READS_MAX = 2_000_000


class _Strict(io.BufferedReader):
    """A file that can be read a bounded number of times until it is ``opened``, and raises at a read past its end
    once it is ``whole``.

    Pillow looks for the next part of a damaged file byte by byte, and takes a cut file for a whole one where
    ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` is set anywhere in the process.
    """

    opened, whole, reads = False, False, 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > READS_MAX and not self.opened:
            raise ValueError("it has too many parts, or none where one is due")
        data = super().read(size)
        if self.whole and not data and size:
            raise EOFError("its data end before the picture does")
        return data


@contextmanager
def opened(path: Path) -> Iterator[Callable[[], Image.Image]]:
    """Give a function that opens a picture file as a PIL image that is not decoded; all are closed after the block.

    The image's ``info`` also holds facts that Pillow does not read: ``bits`` a channel, ``cicp`` and ``frames``.
    Raises :class:`BadPicture` and :class:`Refused` for a file that is no picture, and every error of Pillow.
    """
    if not path.exists():
        raise BadPicture(f"there is no file {path}")
    if not path.is_file():
        raise BadPicture(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}; give a picture file")
    if path.stat().st_size == 0:
        raise BadPicture(f"{path} is empty")
    files = []

    def opener() -> Image.Image:
        try:
            files.append(_Strict(io.FileIO(path)))
        except OSError as error:
            raise Refused(f"cannot be opened ({error.strerror})") from None
        return _image(files[-1], path.suffix.lower())

    try:
        yield opener
    finally:
        for file in files:
            file.close()


def _image(file: _Strict, suffix: str) -> Image.Image:
    """The PIL image of an open file; ``suffix`` is that of its name."""
    head = file.read(MEBI)
    file.seek(0)
    plugin, limit = _plugin(head, suffix), Image.MAX_IMAGE_PIXELS or float("inf")
    if plugin == "Png":
        png_file = png.checked(file, limit)
        image: Any = _class("Png")(png_file.data)
        image.info |= png_file.info
        if png_file.bits in (2, 4) and image.mode == "L" and "transparency" in image.info:
            image.info["transparency"] *= 255 // (2**png_file.bits - 1)  # as the values are
        return image
    size = os.fstat(file.fileno()).st_size
    if plugin != "Tiff" and size > 6 * limit + 64 * MEBI:  # the others may be read as a whole
        raise Refused(f"is a file of {size / 1e6:.0f} MB, more than a picture holds; save it as PNG or JPEG")
    if plugin in ("Jpeg2K", "Heif", "Ico", "Icns") and ImageFile.LOAD_TRUNCATED_IMAGES:
        raise Refused("cannot be checked for damage while PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: set it to False")
    image = _heif(file) if plugin == "Heif" else _tiff(file) if plugin == "Tiff" else _class(plugin)(file)
    if plugin == "Ico":
        icon = image.ico.entry[0]
        file.seek(icon.offset)
        if (data := file.read(icon.size)).startswith(png.SIGNATURE):
            png.checked(io.BytesIO(data), limit)
    if plugin == "Ppm" and isinstance(args := image.tile[0][3], tuple) and args[1] > 255:
        image.info["bits"] = args[1].bit_length()
        if args == ("RGB", 65535):
            image.tile = [image.tile[0]._replace(codec_name="raw", args="RGB;16B")]  # which rounds, and is quick
    image.info |= _boxes(head, plugin, "icc_profile" in image.info)
    frames = _pictures(image.info.get("mp", b"")) if plugin == "Jpeg" else getattr(image, "n_frames", 1)
    image.info["frames"] = getattr(image, "pages", frames)
    file.opened = True
    file.whole = plugin in READ_IN_BLOCKS or [tile[0] for tile in image.tile[:1]] == ["raw"]
    return image


def _plugin(head: bytes, suffix: str) -> str:
    """Pillow's plugin for a file's first bytes. Raises :class:`Refused` where there is none."""
    if suffix in RAW:
        raise Refused(f"is a raw file of a camera, {SAVE}")
    for start, plugin in READ.items():
        if head.startswith(start):
            return plugin
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        brands = head[8 : int.from_bytes(head[:4], "big")]
        if b"avif" in brands or b"avis" in brands:
            return "Avif"
        if any(brand in brands for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")):
            return "Heif"
        raise Refused(f"is {'a raw file of a camera' if b'crx ' in brands else 'a video'}, {SAVE}")
    for start, name in NOT_READ.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(start) or head.startswith(start):
            raise Refused(f"is {name}, {SAVE}")
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    raise Refused("is not a picture that can be read here; save it as PNG or JPEG")


def _class(plugin: str) -> Any:
    """The plugin's class, called with a file. ``Image.open`` would try others, and warn of large pictures."""
    return getattr(importlib.import_module(f"PIL.{plugin}ImagePlugin"), f"{plugin}ImageFile")


def _tiff(file: BinaryIO) -> Any:
    """A TIFF file as a PIL image. Raises :class:`Refused` for those of which Pillow makes another picture."""

    class Tiff(_class("Tiff")):  # type: ignore[misc]
        pages = 1

        def _setup(self) -> None:
            if self.tell():  # a further picture of any kind, which n_frames passes by
                self.pages += not self.tag_v2.get(254, 0) & 5  # neither a smaller copy nor a mask
                return
            inverted = self.tag_v2.get(262) == 0 and self.tag_v2.get(258) == (16,) and self.tag_v2.prefix == b"MM"
            if inverted:  # which Pillow knows in the other order of bytes alone
                self.tag_v2[262] = 1
            super()._setup()
            if inverted:
                self.tag_v2[262] = 0

    image = Tiff(file)
    tags = image.tag_v2
    if tags.get(254, 0) & 1 or 50706 in tags:
        raise Refused("begins with a thumbnail, as raw files of cameras do; save its picture as PNG or JPEG")
    deep = max(tags.get(258, (1,))) > 8
    if 2 in tags.get(339, ()):
        raise Refused(f"holds signed {tags[258][0]}-bit values, which have no known range; save it as 8-bit PNG")
    if deep and tags.get(284) == 2 and image.tile[0][0] == "raw" and len(tags[258]) > 1:
        raise Refused("holds 16-bit channels in planes, which are not read here; save it as PNG")
    return image


def _heif(file: BinaryIO) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise Refused(
            "is a HEIC file, which needs pillow-heif: pip install 'iterinv[heif]', or save it as PNG or JPEG"
        ) from None
    image: Image.Image = HeifImageFile(file)
    image.info["bits"] = image.info.get("bit_depth", 8)
    return image


def _pictures(mp: bytes) -> int:
    """The number of pictures that the multi-picture segment of a JPEG file states."""
    order = "<" if mp[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", mp, 4)
        (count,) = struct.unpack_from(f"{order}H", mp, start)
        entries = [struct.unpack_from(f"{order}HHII", mp, start + 2 + 12 * k) for k in range(count)]
    except struct.error:
        return 1
    return next((value for tag, _, _, value in entries if tag == 0xB001), 1)


def _boxes(head: bytes, plugin: str, has_profile: bool) -> dict[str, Any]:
    """Depth and colour from the boxes of JPEG 2000, AVIF and HEIC files, as far as Pillow does not read them.

    Raises :class:`Refused` for a colour space of JPEG 2000 that is not read.
    """
    info: dict[str, Any] = {}
    if plugin == "Jpeg2K":
        size = head.find(b"\xff\x4f\xff\x51")
        if size >= 0:
            info["bits"] = (head[size + 42] & 0x7F) + 1
        at = head.find(b"colr", 0, size)
        if at >= 0 and head[at + 4] in (2, 3):
            info["icc_profile"] = head[at + 7 : at - 4 + int.from_bytes(head[at - 4 : at], "big")]
        elif at >= 0 and int.from_bytes(head[at + 7 : at + 11], "big") not in (0, 12, 15, 16, 17, 18):
            raise Refused("holds colours of a kind that is not read here; save it as an sRGB PNG")
    elif plugin in ("Avif", "Heif"):
        at, coding = head.find(b"colrnclx"), head.find(b"av1C")
        if at >= 0 and not has_profile:
            info["cicp"] = struct.unpack_from(">HH", head, at + 8)
        if coding >= 0 and head[coding + 6] & 0x40:
            info["bits"] = 12 if head[coding + 6] & 0x20 else 10
    return info
