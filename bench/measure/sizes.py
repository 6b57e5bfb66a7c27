"""Sizes in bytes, as operators write and read them: units of 1024."""

import re

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096

_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Of "512M" and the like. Raises ValueError, as argparse wants it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text.strip().upper())
    if not match:
        raise ValueError(f"{text!r} is no size: write it as 512M or 4G")
    return int(float(match[1]) * _UNITS[match[2]])


def format_size(size: float) -> str:
    """Three digits at most: "3.0 GiB"."""
    for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"


def round_up(size: float, unit: int) -> int:
    return -(-int(size) // unit) * unit
