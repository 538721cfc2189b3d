"""Arrays of images and labels: detects the scale of the images and missing labels.

An array does not record which values are black and white. These rules apply to training and
held-out images together:

- truth values, and whole numbers that are all 0 or 1: 0 is black and 1 white;
- other whole numbers from 0 to 255: 255 is white;
- whole numbers up to 65535: white is the least of 1023, 4095, 16383 and 65535 that is not exceeded;
- fractions from 0 to 1: 0 is black and 1 white;
- fractions from 0 to 255, some of them greater than 2: 255 is white;
- fractions and whole numbers from -1 to 1, some of them negative: -1 is black and 1 white.

The decision is noted in the data report.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monge.errors import UserError

WHITES = (255, 1023, 4095, 16383, 65535)
"""Greatest values of 8, 10, 12, 14 and 16 bits."""

TOLERANCE = 1e-3
"""How far floating-point images may leave their range."""

NOT_LABELS = ("", "?", "nan", "NaN", "NA", "N/A", "null", "NULL", "None")
"""Words that stand for missing labels."""


def white_of(greatest: float) -> int:
    """The least of `WHITES` that is at least a value.

    >>> white_of(255), white_of(4000), white_of(60000)
    (255, 4095, 65535)
    """
    return next(white for white in WHITES if greatest <= white)


def scaled(arrays: Sequence[np.ndarray], what: str) -> tuple[list[np.ndarray], str]:
    """Images as uint8, or as float32 in [-1, 1], with a text on their original scale.

    Raises:
        UserError: no known scale, or NaN or infinite values.
    """
    kinds = {x.dtype.kind for x in arrays}
    low = min(float(x.min()) for x in arrays)
    high = max(float(x.max()) for x in arrays)
    if kinds <= set("b"):
        return [x.astype(np.uint8) * 255 for x in arrays], "truth values: 0 is black, 1 is white"
    if kinds <= set("iub"):
        return _of_integers(arrays, low, high, what)
    for x in arrays:
        refuse_infinite(x, what)
    if low < -1 - TOLERANCE or (low < 0 and high > 1 + TOLERANCE) or high > 255:
        raise _unknown(low, high, what)
    if low < 0:
        return [x.astype(np.float32) for x in arrays], f"{low:g} to {high:g}: -1 is black, 1 white"
    if high <= 1 + TOLERANCE:
        return (
            [np.clip(2 * x.astype(np.float32) - 1, -1, 1) for x in arrays],
            f"{low:g} to {high:g}, none negative: 0 to 1, so 0 is black and 1 is white",
        )
    if high <= 2:
        raise _unknown(low, high, what)
    return (
        [x.astype(np.float32) / 127.5 - 1 for x in arrays],
        f"{low:g} to {high:g}: 0 to 255, so 0 is black and 255 is white",
    )


def _of_integers(
    arrays: Sequence[np.ndarray], low: float, high: float, what: str
) -> tuple[list[np.ndarray], str]:
    if low < 0:
        if low < -1 or high > 1:
            raise _unknown(low, high, what)
        return [x.astype(np.float32) for x in arrays], f"{low:g} to {high:g}: -1 is black, 1 white"
    if high == 1:
        return (
            [(x != 0).astype(np.uint8) * 255 for x in arrays],
            "whole numbers 0 and 1 alone: 0 is black, 1 is white",
        )
    if high > WHITES[-1]:
        raise _unknown(low, high, what)
    white = white_of(high)
    if white == 255:
        plain = all(x.dtype == np.uint8 for x in arrays)
        told = "" if plain else f"{low:g} to {high:g}: 0 is black, 255 is white"
        return [x.astype(np.uint8) for x in arrays], told
    made = [(x.astype(np.float32) * np.float32(255 / white)).round().astype(np.uint8)
            for x in arrays]  # fmt: skip
    return made, f"whole numbers of {low:g} to {high:g}: 0 is black, {white} is white"


def refuse_infinite(x: np.ndarray, what: str) -> None:
    """Refuse examples (N, ...) with NaN or infinite values, by the number of the first.

    Raises:
        UserError: an example has such values.
    """
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(1)
    if bad.any():
        raise UserError(
            f"{what}: {int(bad.sum())} of {len(x)} hold NaN or infinite values, "
            f"the first is example {int(np.flatnonzero(bad)[0])}"
        )


def _unknown(low: float, high: float, what: str) -> UserError:
    return UserError(
        f"{what} are images in [{low:g}, {high:g}], which is no known scale: give uint8, or floats "
        "in [-1, 1], [0, 1] or [0, 255]"
    )


def labels_of(label: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels (n,), a mask of the missing ones, and notes on how they were read.

    Args:
        label: (n,) or (n, 1) whole numbers, also as floating-point, or words; NaN and words such
            as "?" and "nan" are missing labels.

    Raises:
        UserError: another shape or type.
    """
    values = np.asarray(label)
    if values.shape == (n, 1):
        values = values[:, 0]
    if values.shape != (n,):
        hint = ": one-hot rows are labels by label.argmax(1)" if values.ndim == 2 else ""
        raise UserError(f"labels have shape {values.shape}; {n} examples need ({n},){hint}")
    notes = []
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    if values.dtype.kind not in "iufbU":
        raise UserError(f"labels have type {values.dtype}: whole numbers or words are needed")
    missing = np.zeros(n, bool)
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        if np.isinf(values).any():
            raise UserError("labels are infinite")
    elif values.dtype.kind == "U":
        missing = np.isin(np.char.strip(values), NOT_LABELS)
    elif values.dtype.kind == "i" and (values == -1).any():
        notes.append(
            f"the label -1 ({int((values == -1).sum())} times) is taken for a class of its own"
        )
    if missing.any():
        told = sorted({str(v) for v in values[missing]})
        notes.append(f"{int(missing.sum())} labels are missing ({', '.join(map(repr, told))})")
    return values, missing, notes
