"""Physicochemical properties of proteins: ten columns, curved and heavy-tailed, by an MLP."""

from __future__ import annotations

from monge.runs.spec import TrainSpec

ORIGIN = (
    "the UCI data set Physicochemical Properties of Protein Tertiary Structure (45,730 rows) as "
    "parquet with ten columns of numbers, from https://archive.ics.uci.edu/dataset/265 (CC BY 4.0)"
)

SPEC = TrainSpec(
    data="protein.parquet",
    network="mlp:width=256,depth=4",
    steps=6000,
    batch=256,
)
