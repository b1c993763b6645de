"""The endings of picture files, for folders whose files are listed; nothing heavy is imported here."""

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".tif", ".tiff", ".webp", ".avif", ".gif", ".bmp", ".jp2"),
    *(".j2k", ".ppm", ".pgm", ".pnm", ".pbm", ".psd", ".ico", ".icns", ".qoi", ".tga", ".pcx", ".sgi", ".rgb", ".dds"),
    *(".heic", ".heif"),
)
"""The endings of the files in a folder that are taken as pictures."""
