"""Without a network, names on the hub are refused within seconds, and copies in the cache work."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

import monge
from monge.cli import main
from monge.errors import UserError
from monge.system.hub_access import hub_access, unreachable


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """No connection succeeds; the places that were asked for."""
    asked: list[tuple[str, int]] = []

    def refuse(place: tuple[str, int], *_: object, **__: object) -> socket.socket:
        asked.append(place)
        raise OSError(-2, "Name or service not known")

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return asked


def test_offline_is_set_within_and_taken_back(no_network: list[tuple[str, int]]) -> None:
    assert "Name or service not known" in (unreachable() or "")
    with hub_access() as why:
        assert why and constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    with pytest.raises(ValueError, match="own"), hub_access():
        raise ValueError("own")
    assert not constants.HF_HUB_OFFLINE
    assert no_network[0][1] in (80, 443)


def test_a_network_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert unreachable() is None
        with hub_access() as why:
            assert why is None and not constants.HF_HUB_OFFLINE
    assert unreachable() is not None


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "words",
    [
        ["train", "hf:org/nothing"],
        ["train", "digits", "--autoencoder", "diffusers:org/nothing"],
    ],
    ids=["data", "autoencoder"],
)
def test_names_on_the_hub_fail_at_once(words: list[str], tmp_path: Path, capsys) -> None:
    start = time.monotonic()
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert time.monotonic() - start < 20  # five tries of the libraries take 23 s by their waits
    told = capsys.readouterr().err
    assert "cannot be reached (Name or service not known)" in told and "Retrying" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_network")
def test_a_run_on_the_hub_fails_at_once() -> None:
    with pytest.raises(UserError, match=r"not on the hub: .* cannot be reached"):
        monge.load("org/nothing")


def test_a_missing_tensorboard_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    out = tmp_path / "run"
    assert main(["train", "digits", "--steps", "2", "--tensorboard", "--out", str(out)]) == 2
    assert "monge[track]" in capsys.readouterr().err
    assert not (out / "autoencoder").exists()
