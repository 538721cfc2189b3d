"""monge trains, samples, distils and verifies latent flow-matching generative models.

>>> import monge
>>> run = monge.train("digits", steps=5000)              # doctest: +SKIP
>>> run.sample(16, label="3").save("threes")             # doctest: +SKIP
>>> monge.load("runs/digits-1a2b3c4d").evaluate()        # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monge.api import distil, load, train
    from monge.metrics.compare import compare
    from monge.runs.run import Run

__all__ = ["Run", "compare", "distil", "load", "train"]


def __getattr__(name: str) -> Any:
    # Imported where used, so that `import monge` and `monge --help` stay quick.
    if name in ("distil", "load", "train"):
        import monge.api

        return getattr(monge.api, name)
    if name == "compare":
        from monge.metrics.compare import compare

        return compare
    if name == "Run":
        from monge.runs.run import Run

        return Run
    if name == "__version__":
        from monge.runs.folder import monge_version

        return monge_version()
    raise AttributeError(f"module 'monge' has no attribute {name!r}")
