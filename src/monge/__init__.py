"""monge trains, samples, distils and verifies latent flow-matching generative models.

>>> import monge
>>> run = monge.train("digits", steps=5000)              # doctest: +SKIP
>>> run.sample(16, label="3").save("threes")             # doctest: +SKIP
>>> monge.evaluate("runs/digits-1a2b3c4d")               # doctest: +SKIP

From data to a trained run, and from a run to one of few steps:

    train       train on a named source, an array, a table or a Dataset
    distil      turn a trained run into a flow map of one to sixteen steps
    load        the run in a folder, or on the Hugging Face hub
    Run         a trained run: sample, encode, decode, log_density
    Generator   the same of a network of your own, without a folder
    read        data as training reads them

How good it is:

    evaluate    samples against held-out data, with floors and baselines
    verify      where the Wasserstein-2 error comes from
    compare     two sets of samples with each other, or with a reference

The parts, a module each, to be used alone:

    paths, couplings, times, solvers, fields, flows    the mathematics
    targets                                            laws known exactly
    networks, objectives, autoencoders                 what is trained
    learned                                            what has been learned
    metrics                                            estimators
    conformance                                        the laws for parts of your own

The command line does the same: ``monge --help``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monge import (
        autoencoders,
        conformance,
        couplings,
        fields,
        flows,
        learned,
        metrics,
        networks,
        objectives,
        paths,
        solvers,
        targets,
        times,
    )
    from monge.api import distil, evaluate, load, read, train, verify
    from monge.metrics.compare import compare
    from monge.runs.run import Run
    from monge.sampling.generator import Generator

__all__ = [
    "Generator",
    "Run",
    "autoencoders",
    "compare",
    "conformance",
    "couplings",
    "distil",
    "evaluate",
    "fields",
    "flows",
    "learned",
    "load",
    "metrics",
    "networks",
    "objectives",
    "paths",
    "read",
    "solvers",
    "targets",
    "times",
    "train",
    "verify",
]

_HOMES = {
    "Generator": "monge.sampling.generator",
    "Run": "monge.runs.run",
    "compare": "monge.metrics.compare",
    "distil": "monge.api",
    "evaluate": "monge.api",
    "load": "monge.api",
    "read": "monge.api",
    "train": "monge.api",
    "verify": "monge.api",
}
"""Where a public name is, if it is not a module of its own."""


def __getattr__(name: str) -> Any:
    # Imported where used, so that `import monge` and `monge --help` stay quick.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"monge.{name}")
    if name == "__version__":
        from monge.runs.folder import monge_version

        return monge_version()
    raise AttributeError(f"module 'monge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
