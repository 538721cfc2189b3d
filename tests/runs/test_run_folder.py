"""A run folder is continued only by the run that it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from monge.autoencoders import SETTINGS
from monge.errors import UserError
from monge.networks.mlp import MLPSpec
from monge.runs.folder import in_short, open_folder, read_config
from monge.runs.spec import TrainSpec
from monge.system.files import write_json


def test_an_autoencoder_may_train_longer_until_it_is_finished(tmp_path: Path) -> None:
    spec = TrainSpec(autoencoder_steps=5)
    assert open_folder(tmp_path, spec) == {}
    longer = replace(spec, autoencoder_steps=9)
    assert open_folder(tmp_path, longer) == {"autoencoder_steps": (5, 9)}
    assert read_config(tmp_path) == in_short(longer)
    write_json(tmp_path / "autoencoder" / SETTINGS, {})
    with pytest.raises(UserError, match=r"autoencoder_steps  9            12"):
        open_folder(tmp_path, replace(spec, autoencoder_steps=12))
    assert read_config(tmp_path) == in_short(longer)


def test_a_run_stays_what_it_is_when_a_default_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrainSpec(network="mlp:width=64", grid="uniform:n=5")
    open_folder(tmp_path, spec)
    assert read_config(tmp_path) == spec
    assert open_folder(tmp_path, replace(spec, network="mlp:width=64,depth=4")) == {}, "the same"

    @dataclass(frozen=True, repr=False)
    class Deeper(MLPSpec):
        depth: int = MLPSpec.depth + 1

    monkeypatch.setattr("monge.networks.mlp.MLPSpec", Deeper)
    kept = f"mlp:width=64,depth={MLPSpec.depth}"
    assert read_config(tmp_path).network == kept
    assert open_folder(tmp_path, replace(spec, network=kept)) == {}
    with pytest.raises(UserError, match="network  mlp:width=64,depth="):
        open_folder(tmp_path, spec)
