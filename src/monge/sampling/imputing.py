"""Missing cells of a table drawn from a model of all columns given some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.known import known_coordinates, learned_names
from monge.data.columns.schema import TableCodec
from monge.data.columns.spelling import cells_of
from monge.data.tables import raw_csv, table_files
from monge.data.tables.missing import nan_as_missing
from monge.data.tables.parsed_cells import parsed
from monge.errors import UserError, nearest
from monge.sampling.known_columns import knows_columns
from monge.sampling.model import GenerativeModel

DRAW = "draw"
"""Name of the column that numbers the draws, if there are several."""


@dataclass(frozen=True)
class Imputed:
    """Missing cells of a table, drawn several times.

    Attributes:
        holes: for each learned column that has some, which rows (N,) are missing.
        drawn: for each draw the values of the rows with holes, as a table.
        rows: numbers of these rows.
    """

    holes: Mapping[str, np.ndarray]
    drawn: Sequence[pa.Table]
    rows: np.ndarray

    @property
    def cells(self) -> int:
        """The number of missing cells."""
        return int(sum(missing.sum() for missing in self.holes.values()))

    def values(self, name: str, draw: int) -> pa.ChunkedArray:
        """The drawn values of a column's missing cells, in order."""
        return self.drawn[draw][name].filter(pa.array(self.holes[name][self.rows]))


def impute(
    model: GenerativeModel, table: pa.Table, draws: int = 1, *, seed: int = 0, **sampling: Any
) -> pa.Table:
    """A table with its missing cells drawn from the model, given the known cells of their row.

    Known cells are returned unchanged, and so are columns that the model does not know. With
    several draws the table is repeated, and its first column numbers them from 1.

    Raises:
        UserError: a model that was not trained with ``conditional="any"``, or other values than
            the table has.
    """
    return filled(*_drawn_of_table(model, table, draws, seed, sampling), draws)


def _drawn_of_table(
    model: GenerativeModel, table: pa.Table, draws: int, seed: int, sampling: Mapping[str, Any]
) -> tuple[pa.Table, Imputed]:
    """A table whose NaN are null, and its missing cells, drawn."""
    table = nan_as_missing(table)
    known = table.select(_common(codec_for(model), table.column_names))
    return table, drawn(model, known, draws, seed, **sampling)


def filled(table: pa.Table, found: Imputed, draws: int) -> pa.Table:
    """A table with its missing cells as drawn, repeated for each draw."""
    tables = [_filled(table, found, draw) for draw in range(draws)]
    if draws == 1:
        return tables[0]
    name = free_name(table.column_names)
    numbered = [
        t.add_column(0, name, pa.array(np.full(len(t), k + 1))) for k, t in enumerate(tables)
    ]
    return pa.concat_tables(numbered)


def impute_file(
    model: GenerativeModel, path: Path, draws: int = 1, *, seed: int = 0, **sampling: Any
) -> tuple[bytes, Imputed]:
    """The content of a csv or parquet file with its missing cells drawn; see `impute`.

    Of a csv file all other text is kept: known cells, header, delimiter, quotes and line ends.

    Raises:
        UserError: see `impute`; a file of another kind, or cells that the table does not have.
    """
    codec = codec_for(model)
    if (suffix := table_files.suffix_of(path)) not in table_files.SUFFIXES:
        raise UserError(f"cannot impute {path}: give a .csv, .tsv or .parquet file")
    if suffix == ".parquet":
        table, found = _drawn_of_table(model, table_files.read(path), draws, seed, sampling)
        return table_files.parquet_of(filled(table, found, draws)), found
    raw = raw_csv.read_raw(path)
    names = _common(codec, list(raw.dialect.names))
    places = {name: raw.dialect.names.index(name) for name in names}
    arrays = [parsed(raw.texts(places[name]), codec.schema.field(name)) for name in names]
    found = drawn(model, pa.table(dict(zip(names, arrays, strict=True))), draws, seed, **sampling)
    encoding = raw.dialect.encoding
    return _csv_text(raw, codec, places, found).encode(encoding, "replace"), found


def codec_for(model: GenerativeModel) -> TableCodec:
    """The codec of a model that can impute.

    Raises:
        UserError: a model that cannot.
    """
    if not knows_columns(model) or model.codec is None:
        raise UserError(
            "this run cannot impute: train on a table with --conditional any for a model of all "
            "columns given some"
        )
    return model.codec


def drawn(
    model: GenerativeModel, table: pa.Table, draws: int, seed: int = 0, **sampling: Any
) -> Imputed:
    """The missing cells of a table of learned columns, drawn; see `impute`."""
    if draws < 1:
        raise UserError(f"the number of draws must be at least 1, not {draws}")
    codec = codec_for(model)
    holes = {name: np.asarray(compute.is_null(table[name])) for name in table.column_names}
    holes = {name: missing for name, missing in holes.items() if missing.any()}
    rows = np.flatnonzero(np.logical_or.reduce(list(holes.values()))) if holes else np.arange(0)
    if not len(rows):
        return Imputed({}, [], rows)
    some = table.take(pa.array(rows))
    _refuse_unknown(codec, some, rows)
    given = known_coordinates(codec, some, present=True).repeat(draws, 1)
    made = model.sample(len(given), condition=given, seed=seed, **sampling)
    whole = codec.decode(made.x, fill=True)
    m = len(rows)
    return Imputed(holes, [whole.slice(k * m, m) for k in range(draws)], rows)


def _refuse_unknown(codec: TableCodec, table: pa.Table, rows: np.ndarray) -> None:
    """Refuse categories that the run does not know, with their row in the whole table."""
    for c in codec.columns:
        if c.role != "category" or c.name not in table.column_names:
            continue
        column = codec.cast(table, c, holes=True)
        known = arrow.array_of(c.values, column.type)
        strange = compute.is_null(compute.index_in(column.drop_null(), value_set=known))
        if compute.any(strange).as_py():
            place = np.flatnonzero(np.asarray(compute.is_valid(column)))
            at = int(place[np.flatnonzero(np.asarray(strange))[0]])
            value = str(column[at].as_py())
            raise UserError(
                f"column {c.name!r}, row {rows[at]}: {value!r} is none of its values: "
                + nearest(value, map(str, known.to_pylist()))
            )


def _common(codec: TableCodec, names: Sequence[str]) -> list[str]:
    """The learned columns among names.

    Raises:
        UserError: there are none.
    """
    found = [name for name in names if name in learned_names(codec)]
    if not found:
        raise UserError(
            f"there is none of this run's columns: {', '.join(map(repr, learned_names(codec)[:5]))}"
        )
    return found


def free_name(names: Sequence[str]) -> str:
    """A name for the number of the draw that no column has."""
    name = DRAW
    while name in names:
        name += "_"
    return name


def _filled(table: pa.Table, found: Imputed, draw: int) -> pa.Table:
    for name in found.holes:
        at, column = table.column_names.index(name), table[name]
        values = found.values(name, draw).cast(column.type)
        # Missing cells take the drawn values in their order, known cells themselves.
        made = compute.replace_with_mask(
            column.combine_chunks(), pa.array(found.holes[name]), values.combine_chunks()
        )
        table = table.set_column(at, table.schema.field(at), made)
    return table


def _csv_text(
    raw: raw_csv.RawCsv, codec: TableCodec, places: Mapping[str, int], found: Imputed
) -> str:
    """The text of a csv file with drawn cells, once for each draw."""
    draws = max(1, len(found.drawn))
    if draws == 1:
        return _with_cells(raw, codec, places, found, 0).text()
    mark = raw.dialect.delimiter
    before, header = raw.parts_of_head()
    parts = [before, f"{free_name(raw.dialect.names)}{mark}", header]
    ends = [end or "\n" for end in raw.ends]
    for k in range(draws):
        made = _with_cells(raw, codec, places, found, k)
        parts += [
            f"{k + 1}{mark}{mark.join(row)}{end}" for row, end in zip(made.rows, ends, strict=True)
        ]
    return "".join(parts)


def _with_cells(
    raw: raw_csv.RawCsv, codec: TableCodec, places: Mapping[str, int], found: Imputed, draw: int
) -> raw_csv.RawCsv:
    rows = [list(row) for row in raw.rows]
    for name, missing in found.holes.items():
        cells = cells_of(found.values(name, draw), codec.schema.field(name))
        for row, cell in zip(np.flatnonzero(missing).tolist(), cells, strict=True):
            rows[row][places[name]] = raw.quoted(cell or "")
    return raw_csv.RawCsv(raw.dialect, raw.head, rows, raw.ends)
