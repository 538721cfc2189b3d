"""What all tests share: quiet threads, and where real data lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The same examples each time; `make test-slow` looks for new ones (profile "default").
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, also for the processes that they start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGE_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="module")
def first_seed() -> None:
    """What a file's own fixtures draw is the same whatever ran before on this worker."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def seed(first_seed: None) -> None:
    """What a test draws is the same whatever ran before on this worker."""
    torch.manual_seed(0)


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real data and weights beside the checkout; tests that need them skip without."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA}")
    return SHARED_DATA
