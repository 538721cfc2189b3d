"""A run folder is continued only by the run that it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from monge.autoencoders import SETTINGS
from monge.errors import UserError
from monge.files import write_json
from monge.runs.folder import open_folder, read_config
from monge.runs.spec import TrainSpec


def test_an_autoencoder_may_train_longer_until_it_is_finished(tmp_path: Path) -> None:
    spec = TrainSpec(autoencoder_steps=5)
    assert open_folder(tmp_path, spec) == {}
    longer = replace(spec, autoencoder_steps=9)
    assert open_folder(tmp_path, longer) == {"autoencoder_steps": (5, 9)}
    assert read_config(tmp_path) == longer
    write_json(tmp_path / "autoencoder" / SETTINGS, {})
    with pytest.raises(UserError, match=r"autoencoder_steps  9            12"):
        open_folder(tmp_path, replace(spec, autoencoder_steps=12))
    assert read_config(tmp_path) == longer
