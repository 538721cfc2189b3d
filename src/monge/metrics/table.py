"""One table for every number: a value never stands without its interval, floor and baselines.

A *floor* is the same estimator between two real samples of the size that was used: what a perfect
generator would score. A *baseline* is the same estimator with something simple in the generator's
place. Without both, a distance in high dimension says nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from monge.errors import UserError
from monge.system.files import strict
from monge.system.shown import aligned, as_html, as_paragraphs, wrapped

FORMAT_VERSION = 1
Better = Literal["lower", "higher", "near floor"]
SIGNS: Mapping[Better, str] = {"lower": "↓", "higher": "↑", "near floor": "≈"}
LEGEND = (
    "↓ lower, ↑ higher is better, ≈ as near to the floor as possible; floor: real data; excess: "
    "value minus floor"
)


@dataclass(frozen=True)
class Row:
    """One measured number with everything needed to judge and to repeat it.

    Args:
        name: unique within a table.
        value: the estimate, in `unit`.
        interval: 95 % interval (low, high); NaN ends where none is known.
        interval_method: how the interval was made, and of what it is one.
        floor: the same estimator between two real samples of equal size.
        baselines: the same estimator with other sets in the samples' place; at least one.
        n: examples of the samples that went in.
        protocol: settings, sizes and seeds.
        unit: "" for pure numbers.
        better: which way is good; "near floor" where both sides of it are suspicious.
        p_value: of a test that the samples follow the law of the data, if there is one.
        group: the heading that it stands under, next to the other rows of its group.
        note: why there is no interval, or no value; required where an end is NaN.

    Raises:
        UserError: a part that the table requires is missing or impossible.
    """

    name: str
    value: float
    interval: tuple[float, float]
    interval_method: str
    floor: float
    baselines: Mapping[str, float]
    n: int
    protocol: Mapping[str, str | int | float]
    unit: str = ""
    better: Better = "lower"
    p_value: float | None = None
    group: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        def require(holds: bool, message: str) -> None:
            if not holds:
                raise UserError(f"metric row {self.name!r}: {message}")

        require(bool(self.name), "needs a name")
        for field in ("value", "floor"):
            number = getattr(self, field)
            require(_is_number(number), f"{field} must be a number, not {number!r}")
        require(
            len(self.interval) == 2 and all(map(_is_number, self.interval)),
            f"interval must be two numbers, not {self.interval!r}",
        )
        low, high = self.interval
        require(not low > high, f"interval ({low}, {high}) is upside down")
        unknown = math.isnan(low) or math.isnan(high)
        require(bool(self.note) or not unknown, "needs a note that says why it has no interval")
        require(bool(self.interval_method), "needs the method of its interval")
        require(
            bool(self.baselines) and all(map(_is_number, self.baselines.values())),
            f"needs at least one baseline, each a number, not {self.baselines!r}",
        )
        require(self.n > 0, f"n must be positive, not {self.n}")
        require(self.better in get_args(Better), f"better must be one of {get_args(Better)}")
        p = self.p_value
        require(p is None or math.isnan(p) or 0 <= p <= 1, f"p_value must be in [0, 1], not {p}")
        object.__setattr__(self, "interval", (low, high))
        object.__setattr__(self, "baselines", dict(self.baselines))
        object.__setattr__(self, "protocol", dict(self.protocol))

    @property
    def excess(self) -> float:
        """Value minus floor: a contrast that cancels most of the estimator's bias; may be < 0."""
        return self.value - self.floor

    @property
    def reaches_floor(self) -> bool:
        """Whether the interval holds the floor, or lies on its good side; no if it is unknown."""
        low, high = self.interval
        reached = {"lower": low <= self.floor, "higher": high >= self.floor}
        return reached.get(self.better, low <= self.floor <= high)

    @property
    def debiased(self) -> bool:
        """Whether `excess` means something: squares are biased upwards, and can be subtracted."""
        return self.unit.endswith("²")


@dataclass(frozen=True)
class Table:
    """Rows with distinct names, in reading order.

    >>> row = Row("energy distance", 0.02, (0.01, 0.03), "normal", 0.0, {"gaussian": 0.5}, 360, {})
    >>> Table.from_json(Table([row]).to_json())["energy distance"].baselines["gaussian"]
    0.5
    """

    rows: Sequence[Row]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        names = [row.name for row in self.rows]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"metric table: two rows are named {name!r}")

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def content(self) -> dict[str, Any]:
        """Values for strict JSON: NaN becomes null, infinities "inf" and "-inf"."""
        rows = [strict(dataclasses.asdict(row), infinities=True) for row in self.rows]
        return {"format_version": FORMAT_VERSION, "rows": rows}

    def to_json(self) -> str:
        """`content` as JSON text."""
        return json.dumps(self.content(), indent=1, allow_nan=False, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Table:
        """The table that `to_json` wrote.

        Raises:
            UserError: not such a text, or one of a newer format.
        """
        try:
            content = json.loads(text)
            version = int(content["format_version"])
        except (ValueError, KeyError, TypeError):
            raise UserError("metric table: not the JSON of a table (no format_version)") from None
        if version > FORMAT_VERSION:
            raise UserError(
                f"metric table: has format {version}, this monge reads up to {FORMAT_VERSION}: "
                "upgrade monge"
            )
        try:
            return Table([_row(entry) for entry in content["rows"]])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"metric table: a row cannot be read: {error!r}") from None

    @property
    def groups(self) -> dict[str, list[Row]]:
        """The rows under each heading, in reading order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found

    def text(self, width: int | None = None) -> str:
        """Aligned columns for the terminal: a line for each row, a headed block for each group.

        Args:
            width: characters of a line at most, as far as a row's name allows; None: no limit.
        """
        blocks = [_block(title, rows) for title, rows in self.groups.items()]
        first = max((len(line[0]) for block in blocks for line in block), default=0)
        texts = [aligned(block, first, width) for block in blocks]
        notes = [f"{row.name}: {row.note}" for row in self.rows if row.note]
        return "\n".join(["\n\n".join(texts), *(wrapped(x, width) for x in (LEGEND, *notes))])

    def __repr__(self) -> str:
        return f"Table({len(self.rows)} rows: {', '.join(row.name for row in self.rows[:3])}, ...)"

    def _repr_html_(self) -> str:
        tables = [as_html(_block(title, rows)) for title, rows in self.groups.items()]
        return "".join([*tables, as_paragraphs([LEGEND])])


def _block(title: str, rows: Sequence[Row]) -> list[list[str]]:
    """Cells of a group: a head, with the baselines that its rows have, and a line for each row."""
    columns = list(dict.fromkeys(name for row in rows for name in row.baselines))
    tested = any(row.p_value is not None for row in rows)
    excess = any(row.debiased for row in rows)
    head = [title or "metric", "value", "95 % interval", "floor", *["excess"] * excess, *columns]
    lines = [[*head, "n", *["p"] * tested]]
    for row in rows:
        low, high = row.interval
        cells = [
            f"{SIGNS[row.better]} {row.name}",
            short(row.value),
            "-" if math.isnan(low) else f"[{short(low)}, {short(high)}]",
            short(row.floor),
        ]
        cells += [short(row.excess) if row.debiased else "-"] * excess
        cells += [short(row.baselines[c]) if c in row.baselines else "-" for c in columns]
        cells += [str(row.n), *["-" if row.p_value is None else short(row.p_value)] * tested]
        lines.append(cells)
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def short(value: float) -> str:
    """A number with three significant digits; a dash for none."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def _row(entry: Mapping[str, Any]) -> Row:
    def number(value: Any) -> float:
        return math.nan if value is None else float(value)

    low, high = map(number, entry["interval"])
    read = {
        "value": number(entry["value"]),
        "floor": number(entry["floor"]),
        "interval": (low, high),
        "baselines": {key: number(value) for key, value in entry["baselines"].items()},
        "p_value": None if entry.get("p_value") is None else float(entry["p_value"]),
    }
    if (math.isnan(low) or math.isnan(high)) and not entry.get("note"):
        read["note"] = "no reason was recorded"
    return Row(**{**entry, **read})
