"""Image files of kinds that Pillow reads but does not write."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_gray_tiff(path: Path, values: np.ndarray, bits: int, white_is_zero: bool = False) -> None:
    """Write an uncompressed gray TIFF whose stored values are `values`, packed into `bits` each.

    Args:
        path: the file.
        values: (H, W) integers below 2**bits.
        bits: 1, 2, 4, 8 or 12.
        white_is_zero: mark it as inverted; the stored values stay the same.
    """
    shifts = np.arange(bits)[::-1]
    rows = (values[..., None] >> shifts & 1).reshape(len(values), -1).astype(np.uint8)
    data = np.packbits(rows, axis=1).tobytes()
    short, long = 3, 4
    tags = [
        (256, long, values.shape[1]),
        (257, long, values.shape[0]),
        (258, short, bits),
        (259, short, 1),  # no compression
        (262, short, 0 if white_is_zero else 1),
        (273, long, 8),  # where the data begin
        (277, short, 1),
        (278, long, values.shape[0]),
        (279, long, len(data)),
    ]
    data += b"\0" * (len(data) % 2)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    entries = [
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(header + data + directory)
