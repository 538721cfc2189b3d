"""`Reading`: the settings with which a source is read.

A plain dataclass of scalars. It is part of every run's specification, so that a run reads its data
again exactly as for training. It needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reading:
    """Settings for reading a source. Lists of columns are names separated by commas."""

    image_size: int | None = None
    """Side of the square images that are learned; none: the images' own size if it is common and
    at most 128, else 64."""
    image_fit: Literal["crop", "pad"] = "crop"
    """Images of another size: crop takes the central square and resizes it with antialiasing;
    pad shrinks those that are too large and surrounds them with black."""
    image_mode: Literal["auto", "RGB", "RGBA"] = "auto"
    """Channels of images: RGBA learns transparency as a fourth channel; auto: grey if all images
    are grey, else RGB, with transparent parts on white."""
    image_column: str | None = None
    """Column of the images, in parquet files and hub data sets; none: the only such column."""
    label_column: str | None = None
    """Column of the labels, in tables, parquet files, hub data sets and labels.csv."""
    columns: str | None = None
    """Columns of a table to model; none: all but the dropped, label and condition columns."""
    drop: str | None = None
    """Columns of a table to leave out."""
    condition_columns: str | None = None
    """Numeric columns of a table that the model is conditioned on, not learned."""
    categorical: str | None = None
    """Columns of a table whose values are categories, numbers or words."""
    missing: Literal["refuse", "drop", "mean", "model"] = "refuse"
    """Missing values in a table: refuse the table, drop their rows, take the column's mean, or
    model them: samples then have gaps like those of the table."""
    dates: Literal["auto", "day-first", "month-first"] = "auto"
    """Order of day and month in dates such as 03/04/2020; auto: by the dates of the file, which are
    refused if they do not tell."""
    marginals: Literal["auto", "quantile", "power", "none"] = "none"
    """Learn the numbers of a table as normal scores, by a smooth curve through the quantiles of
    each column (quantile) or a power transform (power), or unchanged (none); auto: quantile for
    columns that are not normal. Samples and densities are in the file's units."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    """Split of a hub data set to train on; none: train."""
    limit: int | None = None
    """Most examples: spread over a folder, the first ones of other sources."""
    allow_bad: bool = False
    """Accept more than 1 % of unreadable files, and leave them out."""
