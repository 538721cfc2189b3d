"""`Run`: a trained model in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import torch
from torch import Tensor, nn

from monge import autoencoders
from monge.components import Component
from monge.data import sources
from monge.data.base import Data
from monge.errors import UserError
from monge.latents.batches import Latents
from monge.networks.exact import ExactNetwork
from monge.runs import places, same_data, sharing
from monge.runs.folder import read_config
from monge.runs.latents import latents_for
from monge.runs.layout import CONFIG
from monge.runs.restore import (
    build_network,
    codec_of,
    learned_of,
    load_weights,
    pick_device,
    read_facts,
)
from monge.runs.spec import TrainSpec
from monge.sampling import conditions, imputing
from monge.sampling.facts import DataFacts
from monge.sampling.generator import Generator
from monge.system import own_code
from monge.system.files import refuse_links
from monge.system.progress import quiet
from monge.system.weights import require_fit

if TYPE_CHECKING:
    from monge.metrics.evaluate import Evaluation

REFERENCE = 2000
"""Most held-out examples shown beside samples."""

IN_MEMORY = (
    "{folder} was trained on arrays in memory, which no command can read again: in Python, pass "
    "them as data=, or the result of monge.read for them and their labels"
)
"""The message for a run whose data cannot be read again."""

Weights = Literal["ema", "model", "best"]


@dataclass(eq=False, repr=False, kw_only=True)
class Run(Generator):
    """A trained model in its folder.

    >>> run = monge.load("runs/digits-1a2b3c4d")          # doctest: +SKIP
    >>> run.sample(16, label="3").grid().save("threes.png")  # doctest: +SKIP

    Attributes:
        folder: of the run.
        spec: the settings of its training.
        weights: the averaged weights (ema), those of the last step (model), or a map's best.
        load_teacher: loads the run from which it was distilled, once; None without a teacher.
    """

    folder: Path
    spec: TrainSpec
    weights: Weights = "ema"
    load_teacher: Callable[[], Run] | None = None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        weights: Weights = "ema",
        trust_code: bool = False,
    ) -> Run:
        """The run in a folder, for sampling and evaluation.

        Args:
            trust_code: execute the run's own components from its files, if it has any.

        Raises:
            UserError: no finished run there, files of a newer format, or a changed autoencoder.
        """
        folder = Path(folder)
        refuse_links(folder)
        if trust_code:
            own_code.trust(folder)
        spec = read_config(folder)
        where = pick_device(device)
        facts = read_facts(folder)
        if not (folder / "autoencoder" / "autoencoder.json").exists():
            raise UserError(f"{folder} is not trained yet: run its `monge train` command again")
        autoencoder = autoencoders.load(folder / "autoencoder").to(where).eval()
        file = folder / f"{weights}.safetensors"
        if spec.network != "exact":
            if not file.exists():
                raise UserError(
                    f"{folder} has no {file.name}: train it for some steps first, or, if it is "
                    f"an autoencoder alone, use it by monge train SOURCE --autoencoder {folder}"
                )
            settings = f"the network {spec.network} of {folder / CONFIG}"
            shape = autoencoder.latent_shape
            require_fit(lambda: build_network(spec, shape, facts), file, settings)
        network = build_network(spec, autoencoder.latent_shape, facts)
        if not isinstance(network, ExactNetwork):
            load_weights(network, file)
        return cls.of(folder, spec, facts, autoencoder, network.to(where).eval(), where, weights)

    @classmethod
    def of(
        cls,
        folder: Path,
        spec: TrainSpec,
        facts: DataFacts,
        autoencoder: Any,
        network: nn.Module,
        device: torch.device,
        weights: Weights = "ema",
    ) -> Run:
        """The run of a folder, with a network in memory."""
        load = None if spec.teacher is None else _teacher(folder, spec.teacher, network, device)
        teacher = None if load is None else lambda: load().learned
        return cls(
            autoencoder=autoencoder,
            learned=learned_of(spec, network, facts, teacher),
            facts=facts,
            codec=codec_of(folder),
            kept=lambda: conditions.kept(folder),
            final_choice=spec.final,
            name=folder.name,
            device=device,
            reading=spec,
            folder=folder,
            spec=spec,
            weights=weights,
            load_teacher=load,
        )

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.spec.data}, {self.spec.network})"

    @property
    def mirrored(self) -> bool:
        """Whether mirror images of the training data were learned too."""
        return self.spec.flip == "yes"

    @property
    def digest(self) -> str:
        """Eight hex digits of the specification."""
        return self.spec.digest()

    @property
    def teacher(self) -> Run | None:
        """The run from which this one was distilled, in the same precision; None without a teacher.

        Raises:
            UserError: the teacher's folder is missing.
        """
        return None if self.load_teacher is None else self.load_teacher()

    def training_latents(self, data: Data) -> Latents:
        """The standardised latents of training data and, if they were learned, of mirror images."""
        return latents_for(self.spec, self.autoencoder, data, self.device, quiet)

    def data(self) -> Data:
        """The training data of the run, loaded again.

        Raises:
            UserError: the data were arrays in memory, or have changed.
        """
        facts = self.facts
        if facts.text is None:
            raise UserError(IN_MEMORY.format(folder=self.folder))
        data = sources.load(places.found(self.folder, "data", facts.text), self.spec)
        found = same_data.differences(data, facts, self.codec)
        if found or data.fingerprint != facts.fingerprint:
            what = "; ".join(found) or f"fingerprint {facts.fingerprint}, now {data.fingerprint}"
            raise UserError(
                f"the data {facts.text!r} has changed since the run was trained ({what})"
            )
        return data

    def reference(self) -> Tensor | None:
        """Held-out examples to show beside samples; None if the data cannot be read."""
        try:
            return self.data().heldout[:REFERENCE]
        except UserError:
            return None

    # Shortcuts to functions of the rooms above.

    def evaluate(self, n: int = 1000, **settings: Any) -> Evaluation:
        """Measure n samples against held-out data; see `monge.evaluate`."""
        return _upstairs("monge.api", "evaluate")(self, n, **settings)

    def impute(self, table: Any, draws: int = 1, **settings: Any) -> pa.Table:
        """A table with its missing cells drawn given the known ones; see `imputing.impute`.

        Args:
            table: of Arrow, or a data frame that Arrow can read; null is a missing cell.
        """
        return imputing.impute(self, pa.table(table), draws, **settings)

    def verify(self, n: int | None = None, **settings: Any) -> dict[str, Any]:
        """Decompose the Wasserstein-2 error of samples into its sources; see `monge.verify`."""
        return _upstairs("monge.api", "verify")(self, n, **settings)

    def distil(self, objective: str | Component | None = None, **settings: Any) -> Run:
        """Distil this run into a flow map of few steps; see `monge.distil`."""
        objectives = () if objective is None else (objective,)
        return _upstairs("monge.api", "distil")(self, *objectives, **settings)

    def export(self, format: str = "pt2", out: str | Path | None = None) -> Path:
        """Write the run in a format for other programs; returns the file or folder.

        Args:
            format: "pt2" for a program of torch alone, or "diffusers" for a pipeline's folder.
            out: file or folder; by default in ``export/`` of the run folder.

        Raises:
            UserError: the format cannot represent the run, or `out` exists.
            CheckFailed: the exported model differs from the run.
        """
        run = self if self.device.type == "cpu" else type(self).load(self.folder, "cpu")
        place = None if out is None else Path(out)
        return _upstairs("monge.export.run", "export_run")(run, format, place)[0]

    def report(self) -> Path:
        """Write ``report.html`` from the files of the run folder; returns its path."""
        return _upstairs("monge.report.report", "write_report")(self.folder)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy the files that sampling needs to a folder: settings, weights, autoencoder, card."""
        return sharing.save(self.folder, Path(folder))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "auto", trust_code: bool = False
    ) -> Run:
        """Load a run from a folder, or by its name on the Hugging Face hub; see `load`."""
        return cls.load(sharing.fetch(name), device, trust_code=trust_code)

    def push_to_hub(self, repo: str, private: bool = True) -> str:
        """Upload the run to the Hugging Face hub; returns its address."""
        return sharing.push(self.folder, repo, private)


def _upstairs(module: str, name: str) -> Any:
    """A function of a higher room, imported when used."""
    return getattr(import_module(module), name)


def _teacher(
    folder: Path, teacher: str, network: nn.Module, device: torch.device
) -> Callable[[], Run]:
    """A function that loads the teacher of a run once, in the precision of its network."""

    @cache
    def load() -> Run:
        place = Path(places.found(folder, "teacher", teacher))
        if not place.is_dir():
            raise UserError(
                f"{folder} was distilled from {teacher}, which is not there any "
                "more: put it back to compare the map with it; sampling does not need it"
            )
        found = Run.load(place, str(device))
        own = next(network.parameters(), None)
        if own is not None:
            found.network.to(own.dtype)
        return found

    return load
