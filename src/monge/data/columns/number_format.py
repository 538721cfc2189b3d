"""Numbers with a unit, thousands separators or a decimal comma: read as numbers, written the same.

A format is the text around the digits, once for positive and once for negative numbers, the sign
between thousands, and the decimal mark: "$1,234.50" and "-$1,234.50", "12,5 %", "(3)".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from monge.data.columns.arrow import compute

DIGITS = r"[.,]?[0-9](?:[0-9.,'’ \x{00a0}\x{202f}]*[0-9])?"
"""The digits of a number with their separators, for Arrow."""

HOLE = "{}"
"""Stands for the digits in a format."""


@dataclass(frozen=True)
class NumberFormat:
    """The notation of numbers.

    Attributes:
        positive, negative: the text around the digits, with `HOLE` in their place.
        thousands: between groups of three digits; "" for none.
        point: the decimal mark.
    """

    positive: str = HOLE
    negative: str = "-{}"
    thousands: str = ""
    point: str = "."

    @property
    def is_plain(self) -> bool:
        """Whether numbers are written with digits, a point and a minus alone."""
        return self == PLAIN_NUMBERS

    @property
    def pattern(self) -> str:
        """A regular expression for the cells of this format, for Arrow."""
        each = (re.escape(text).replace(re.escape(HOLE), self.digits)
                for text in (self.positive, self.negative))  # fmt: skip
        return "^(?:" + "|".join(each) + ")$"

    @property
    def digits(self) -> str:
        """A regular expression for digits with these separators."""
        point = re.escape(self.point)
        if not self.thousands:
            return rf"(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)"
        return rf"[0-9]{{1,3}}(?:{re.escape(self.thousands)}[0-9]{{3}})*(?:{point}[0-9]+)?"

    def plain(self, cells: pa.Array) -> pa.Array:
        """Cells as plain numbers; those of another format are returned as they are."""
        fits = compute.match_substring_regex(cells, self.pattern)
        below = compute.match_substring_regex(cells, r"[(\x{2010}-\x{2015}\x{2212}-]")
        bare = compute.replace_substring_regex(cells, r"[^0-9.,'’ \x{00a0}\x{202f}]", "")
        bare = compute.utf8_trim_whitespace(bare)
        if self.thousands:
            bare = compute.replace_substring(bare, self.thousands, "")
        if self.point != ".":
            bare = compute.replace_substring(bare, self.point, ".")
        signed = compute.if_else(below, compute.binary_join_element_wise("-", bare, ""), bare)
        return compute.if_else(fits, signed, cells)

    def written(self, plain: str) -> str:
        """A plain number, such as -1234.5, in this format.

        >>> NumberFormat("{} €", "-{} €", ".", ",").written("-1234.50")
        '-1.234,50 €'
        """
        below, bare = plain.startswith("-"), plain.removeprefix("-")
        whole, dot, rest = bare.partition(".")
        if self.thousands and whole.isdigit():
            whole = f"{int(whole):,}".replace(",", self.thousands)
        digits = whole + (self.point + rest if dot else "")
        return (self.negative if below else self.positive).replace(HOLE, digits)


PLAIN_NUMBERS = NumberFormat()
