"""Tiny finished runs, trained once per test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from monge.fitting.train import train
from monge.runs.run import Run
from monge.runs.spec import TrainSpec

TINY_TABLE = TrainSpec(
    data="target:mixture:dim=2,modes=3,seed=0",
    network="mlp:width=32,depth=2",
    steps=30,
    batch=64,
    save_every=10,
    sample_every=15,
    log_every=5,
    grid="uniform:n=4",
)

TINY_DIGITS = TrainSpec(
    data="digits",
    autoencoder="conv:down=2,channels=2,width=16,blocks=1",
    autoencoder_steps=20,
    network="transformer:width=32,depth=1,heads=2",
    steps=20,
    batch=32,
    save_every=10,
    sample_every=10,
    log_every=5,
    grid="uniform:n=4",
)


@pytest.fixture(scope="session")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("runs") / "table"
    return train(TINY_TABLE, out=folder)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("runs") / "digits"
    return train(TINY_DIGITS, out=folder)
