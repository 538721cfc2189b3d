"""Forms of cells: what a number, a date or a missing value looks like in a text file."""

from __future__ import annotations

MARKS = ("?", "-", "--", "---", ".", "..", "*", "\u2013", "\u2014", "none", "None", "NONE",
         "missing", "Missing", "unknown", "Unknown", "N.A.", "n.a.", "nil", "#DIV/0!", "#VALUE!",
         "#REF!", "#N/D", "#NULL!")  # fmt: skip
"""Cells that are missing values among numbers."""

POINT = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"
COMMA = r"^[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?$"
WHOLE = r"^[+-]?\d+$"
ZEROS = r"^0\d+$"
DIALLED = r"^\+\d{7,}$"
LETTERED = r"^\d+[eE]\d+$"
THREE = r"^[+-]?[1-9]\d{0,2}[.,]\d{3}$"
ENDS_IN_ZERO = r"^[+-]?\d*\.\d+0$"
TRUTH = r"^(?i:true|false)$"
DATE = r"^\d{4}-\d{2}-\d{2}$"
TIME = r"^\d{2}:\d{2}(:\d{2})?$"
CLOCK = r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$"
STAMP = r"^\d{4}-\d{2}-\d{2}[ T]\d{2}(:?\d{2}(:?\d{2}(\.\d{1,9})?)?)?(Z|[+-]\d{2}:?\d{2})?$"

FOREIGN = {
    "percentages": r"^[+-]?\d+([.,]\d+)?\s*%$",
    "numbers with thousands separators": r"^[+-]?\d{1,3}([ .,'\x{00a0}\x{202f}]\d{3})+([.,]\d+)?$",
    "dates that do not begin with the year": r"^\d{1,2}[./-]\d{1,2}[./-]\d{2}(\d{2})?( .*)?$",
    "dates with strokes": r"^\d{4}/\d{1,2}/\d{1,2}( .*)?$",
    "negative numbers in brackets": r"^\(\s*[\d.,]+\s*\)$",
    "minus signs that are none": r"^[\x{2010}-\x{2015}\x{2212}]\s*[\d.,]+$",
    "amounts of money": r"^[$€£¥]\s*[+-]?[\d.,]+$|^[+-]?[\d.,]+\s*[$€£¥]$",
}
"""What other programs read as numbers or dates, and what to call it."""
