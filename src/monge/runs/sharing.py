"""How a run travels: a folder with what sampling needs, and the Hugging Face hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from monge.data import columns as table_columns
from monge.errors import UserError
from monge.runs import conditions

FILES = (
    "config.yaml",
    "data.json",
    "ema.safetensors",
    "README.md",
    table_columns.FILE,
    conditions.FILE,
    "autoencoder/autoencoder.json",
    "autoencoder/autoencoder.safetensors",
)
"""What a run may have that sampling or its card needs."""


def save(run: Path, target: Path) -> Path:
    """Copy what sampling needs from a run folder to a new one.

    Raises:
        UserError: the target has files already.
    """
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty: choose another folder")
    for name in FILES:
        if (run / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, target / name)
    return target


def fetch(name: str | Path) -> Path:
    """The folder of that name, or of the run of that name on the hub.

    Raises:
        UserError: there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(str(name)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"no folder {name!r}, and not on the hub: {error}") from None


def push(run: Path, repo: str, private: bool) -> str:
    """Upload what `save` writes; returns the address."""
    from huggingface_hub import HfApi

    api = HfApi()
    url = api.create_repo(repo, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(run, Path(folder) / "run")
        api.upload_folder(repo_id=url.repo_id, folder_path=str(Path(folder) / "run"))
    return str(url)
