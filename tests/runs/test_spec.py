"""The specification: one text form, strict and typed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from monge.errors import UserError
from monge.runs.spec import MAY_CHANGE, TrainSpec, difference, from_yaml, to_yaml


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_yaml_round_trip_is_exact(tmp_path: Path) -> None:
    spec = TrainSpec(lr=1e-4, clip=None, path="power:kappa=0.75", minutes=2.5, compile="on")
    assert from_yaml(written(tmp_path / "c.yaml", to_yaml(spec))) == spec


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("lr: 1e-4", "lr", 1e-4),  # plain YAML would read a string
        ("compile: no", "compile", "off"),
        ("compile: true", "compile", "on"),
        ("compile: auto", "compile", "auto"),
        ("steps: none", "steps", None),
        ("error: null", "error", None),
        ("network: no", "network", "no"),  # plain YAML would read False
    ],
)
def test_scalars_are_read_by_the_type_of_their_field(
    tmp_path: Path, line: str, field: str, value: object
) -> None:
    assert getattr(from_yaml(written(tmp_path / "c.yaml", line)), field) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\npaht: linear", r"line 2: unknown key 'paht': did you mean 'path'"),
        ("steps: many", r"line 1: steps takes a whole number, not 'many'"),
        ("output: velocty", r"unknown value 'velocty': did you mean 'velocity'"),
        ("lr: [1, 2]", r"line 1: lr takes one value"),
        ("lr: 1\nlr: 2", r"line 2: lr is given twice"),
        ("format_version: 99", r"format version 99; this monge reads up to 2"),
        ("a: b: c", r"is not YAML"),
        ("just words", r"expected lines of the form"),
    ],
)
def test_bad_yaml_is_refused_with_file_line_and_nearest_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        from_yaml(written(tmp_path / "config.yaml", text))
    assert "config.yaml" in str(error.value)


def test_digest_depends_on_what_is_trained_and_on_nothing_else() -> None:
    spec = TrainSpec()
    free = {"steps": 7, "minutes": 1.0, "device": "cpu", "guidance": 2.0, "threads": 3}
    assert set(free) <= MAY_CHANGE
    assert replace(spec, **free).digest() == spec.digest()
    assert replace(spec, lr=2e-3).digest() != spec.digest()
    assert len(spec.digest()) == 8


def test_difference_names_both_values() -> None:
    assert difference(TrainSpec(), TrainSpec(lr=0.5)) == {"lr": (1e-3, 0.5)}


def test_files_of_version_1_are_read_as_what_they_meant(tmp_path: Path) -> None:
    spec = TrainSpec(lr=1e-4, autoencoder_steps=1500)
    lines = to_yaml(spec).replace("format_version: 2", "format_version: 1").splitlines()
    new = ("image_", "label_column", "columns", "drop", "condition_", "categorical", "missing")
    more = ("subset", "split", "limit", "allow_bad", "flip", "init_from", "check_cache")
    old = "\n".join(line for line in lines if not line.startswith((*new, *more)))
    assert from_yaml(written(tmp_path / "c.yaml", old), complete=True) == spec
    current = old.replace("format_version: 1", "format_version: 2")
    with pytest.raises(UserError, match="it lacks image_size"):
        from_yaml(written(tmp_path / "c.yaml", current), complete=True)
