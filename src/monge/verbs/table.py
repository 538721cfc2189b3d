"""The table of verbs, from which help, dispatch and sharing by processes follow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, get_type_hints

from monge.errors import UserError, nearest


@dataclass(frozen=True)
class Verb:
    """A row of the table. The verb's module is imported when the verb is used.

    Attributes:
        takes: the positional arguments, as shown in the help.
        summary: one line of help.
        module: of its arguments and its `act`.
        shared: whether several processes share its work; else the main process does it alone.
    """

    name: str
    takes: str
    summary: str
    module: str
    shared: bool = False

    @property
    def act(self) -> Callable[[Any], Any]:
        """The function that runs the verb; returns the value that ``--json`` prints."""
        return self._imported().act

    @property
    def arguments(self) -> type:
        """The dataclass that `act` takes."""
        return get_type_hints(self.act)["arguments"]

    def starting_point(self, words: Sequence[str]) -> Any:
        """The arguments that the flags change; None for the defaults of the dataclass."""
        start = getattr(self._imported(), "starting_point", None)
        return None if start is None else start(words)

    def respelt(self, words: Sequence[str]) -> list[str]:
        """The words for the parser, rewritten if the verb has flags outside its dataclass."""
        respelt = getattr(self._imported(), "respelt", None)
        return list(words) if respelt is None else respelt(words)

    def _imported(self) -> ModuleType:
        return importlib.import_module(self.module)


VERBS: tuple[Verb, ...] = (
    Verb(
        "train",
        "SOURCE",
        "train a model on data; run again to continue",
        "monge.verbs.train",
        shared=True,
    ),
    Verb(
        "distil",
        "RUN",
        "turn a trained run into one that samples in one to sixteen steps",
        "monge.verbs.distil",
        shared=True,
    ),
    Verb(
        "chain",
        "SOURCE",
        "fit a flow block by block, with a density after every block",
        "monge.verbs.chain",
        shared=True,
    ),
    Verb(
        "sample",
        "RUN",
        "draw samples from a trained run",
        "monge.verbs.sample",
        shared=True,
    ),
    Verb(
        "impute",
        "RUN HOLES",
        "draw the missing cells of a table, given the known ones",
        "monge.verbs.impute",
    ),
    Verb(
        "evaluate",
        "RUN",
        "measure the samples against held-out data, and write the report",
        "monge.verbs.evaluate",
        shared=True,
    ),
    Verb(
        "verify",
        "RUN",
        "decompose the Wasserstein-2 error into its sources, with advice",
        "monge.verbs.verify",
    ),
    Verb(
        "density",
        "RUN ROWS",
        "compute the log-density of each row of a file, with its error",
        "monge.verbs.density",
    ),
    Verb(
        "encode",
        "RUN SOURCE",
        "encode data as the noise or the latents of a run",
        "monge.verbs.encode",
    ),
    Verb(
        "decode",
        "RUN FILE",
        "decode noise or latents to data, or interpolate between rows",
        "monge.verbs.decode",
    ),
    Verb(
        "export",
        "RUN",
        "write a .pt2 program of torch, or a folder for diffusers",
        "monge.verbs.export",
    ),
    Verb(
        "compare",
        "A B",
        "test whether two sets differ, or which is closer to --reference R",
        "monge.verbs.compare",
    ),
    Verb(
        "autoencoder",
        "SOURCE",
        "train an autoencoder alone, to use with --autoencoder",
        "monge.verbs.autoencoder",
        shared=True,
    ),
    Verb(
        "info",
        "RUN",
        "show settings, progress and quality of a run",
        "monge.verbs.info",
    ),
    Verb(
        "report",
        "RUN|FOLDER",
        "write the page of a run again, or one page for a folder of runs",
        "monge.verbs.report",
    ),
    Verb(
        "cache",
        "",
        "cached data and latents: list, clear",
        "monge.verbs.cache",
    ),
    Verb(
        "recipes",
        "",
        "complete named runs: list, show NAME",
        "monge.verbs.recipes",
    ),
    Verb(
        "study",
        "NAME",
        "measure rates and bounds of theory against ground truth: list, NAME, FILE.py",
        "monge.verbs.study",
    ),
    Verb(
        "check",
        "FILE.py:NAME",
        "test a component of your own with the conformance laws",
        "monge.verbs.check",
    ),
    Verb(
        "demo",
        "",
        "train, sample and evaluate on the bundled digits, in about three minutes",
        "monge.verbs.demo",
        shared=True,
    ),
)


def find(name: str) -> Verb:
    """The verb of a name.

    Raises:
        UserError: no such verb, with the nearest name.
    """
    for verb in VERBS:
        if verb.name == name:
            return verb
    raise UserError(f"unknown verb {name!r}: {nearest(name, (verb.name for verb in VERBS))}")


HELP = """\
monge trains, samples, distils and verifies latent flow-matching generative models.

usage: monge VERB ... [--help]

{verbs}

SOURCE is a folder of images or parquet files, a .csv, .tsv, .parquet, .npz or .npy file,
hf:ORG/NAME, digits, or a law known exactly: target:gaussian:dim=2, target:mixture:dim=16,modes=5,
target:box:dim=2, target:hypercube:dim=2, target:product:laws=laplace+beta, target:latent:dim=16,
target:moons, target:checkerboard, target:spirals, target:rings, target:8gaussians.

  monge train photos/ --image-size 64 --minutes 30
  monge train table.csv --label-column species --drop id

Start with `monge demo`, then `monge train --help`.
"""


def help_text() -> str:
    """The output of ``monge --help``."""
    rows = [f"  {f'{verb.name} {verb.takes}'.ljust(20)}{verb.summary}" for verb in VERBS]
    return HELP.format(verbs="\n".join(rows))
