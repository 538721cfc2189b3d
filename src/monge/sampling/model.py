"""`GenerativeModel`: draws samples and computes densities with a model in latent space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor, nn

from monge import autoencoders
from monge.autoencoders.standardised import Standardised, unscaled
from monge.components import Component, text_of
from monge.data.base import Data
from monge.data.columns.schema import TableCodec
from monge.data.reading import Reading
from monge.errors import UserError, nearest
from monge.fields import Final, final_map
from monge.flows import Density, Walk
from monge.flows.density import EXACT
from monge.latents.batches import Latents
from monge.latents.cache import in_units_of, latents_of
from monge.learned.base import JUMPS, Draw, Learned
from monge.paths import Path as InterpolationPath
from monge.sampling import conditions, known_columns
from monge.sampling.facts import DataFacts
from monge.sampling.labels import asked_labels
from monge.sampling.samples import Origin, Samples
from monge.system import row_sharing
from monge.system.progress import quiet
from monge.tensors import CHUNK, noise
from monge.types import Cond, VelocityField

FINALS = ("auto", "none", "divide", "posterior_mean")


@dataclass(eq=False, repr=False)
class GenerativeModel:
    """An autoencoder and a model of its latents: draws samples and computes densities.

    Attributes:
        autoencoder: between data and the latents of the model. If the model was trained on
            standardised latents, wrap it by `autoencoders.standardise`.
        learned: see `learned.Learned`.
        source: the training data, with labels and columns.
        facts: of the data, in place of the source. With neither, decoded examples with three axes
            are images, others rows of a table, and there are no labels.
        codec: of the columns of a table.
        kept: conditions of training rows, for samples without a requested condition.
        final_choice: the final map of a sample: auto, none, divide or posterior_mean.
        name: of the model, recorded in samples.
        device: None for the network's device.
        reading: settings for reading sources to encode.
    """

    autoencoder: Any
    learned: Learned
    source: InitVar[Data | None] = None
    facts: DataFacts = None  # type: ignore[assignment]
    codec: TableCodec | None = None
    kept: conditions.Source | None = None
    final_choice: str = "auto"
    name: str = "generator"
    device: torch.device = None  # type: ignore[assignment]
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self, source: Data | None) -> None:
        if self.device is None:
            weights = next(self.network.parameters(), torch.empty(0))
            self.device = weights.device
        if not isinstance(self.autoencoder, Standardised):
            self.autoencoder = unscaled(self.autoencoder).to(self.device)
        if source is not None:
            self.facts = DataFacts.of(source)
            self.codec, self.kept = source.codec, conditions.source_of(source)
        if self.facts is None:
            self.facts = _facts_of(self.autoencoder, self.device)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.learned.title})"

    @property
    def network(self) -> nn.Module:
        return self.learned.network

    @property
    def path(self) -> InterpolationPath:
        return self.learned.path

    @property
    def field(self) -> VelocityField:
        """The learned velocity field, in standardised latent units."""
        return self.learned.field

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the network computes."""
        return next((p.dtype for p in self.network.parameters()), torch.float32)

    @property
    def label_names(self) -> list[str]:
        return list(self.facts.label_names)

    @property
    def mirrored(self) -> bool:
        """Whether mirror images of the training data were learned too."""
        return False

    @property
    def digest(self) -> str:
        """The digest of the specification; "none" without one."""
        return "none"

    @property
    def origin(self) -> Origin:
        """The facts of this generator that samples record."""
        return Origin(
            self.name, self.digest, self.facts.kind, self.facts.label_names, self.codec,
            self.reference,
        )  # fmt: skip

    def reference(self) -> Tensor | None:
        """Held-out examples to show beside samples; None if there are none."""
        return None

    def flow(
        self,
        steps: int | None = None,
        solver: str | Component | None = None,
        grid: str | Component | None = None,
        guidance: float | None = None,
    ) -> Walk:
        """The flow map for sampling; None means the default setting.

        A learned map jumps along the grid; with a solver, its velocity is integrated instead.
        """
        return self.learned.flow(**_asked(steps, solver, grid, guidance))

    @torch.no_grad()
    def sample(
        self,
        n: int = 16,
        label: str | int | Sequence[str | int] | Tensor | None = None,
        *,
        condition: str | Mapping[str, Any] | Tensor | pa.Table | None = None,
        steps: int | None = None,
        solver: str | Component | None = None,
        grid: str | Component | None = None,
        guidance: float | None = None,
        final: str | None = None,
        seed: int = 0,
        progress: Any = None,
    ) -> Samples:
        """Draw n samples. Sample i depends on (seed, i) alone, given its label and condition.

        Args:
            label: a label's name or index, several of them, "all", or one index per sample
                (N,); None draws labels by their frequency in the training data.
            condition: of a table with condition columns, in their units: "a=3.5,b=1", or a
                mapping, or one row per sample (N, K); None draws the conditions of training rows
                (with their labels, or with the sample's label). Of a run trained with
                ``conditional="any"``: values of any columns, see `known_columns.given_cells`.
            steps: of the solver; replaces the grid's number.
            solver, grid: texts as on the command line, or components.
            progress: receives the number of samples finished since the last call.

        Raises:
            UserError: an unknown label or condition, or settings that do not fit the run.
        """
        if not isinstance(n, int) or n < 1:
            raise UserError(f"the number of samples must be at least 1, not {n}")
        cells = known_columns.given_to(self, n, condition)
        labels, given = self.draw_conditions(n, label, None if cells else condition, seed)
        asked = _asked(steps, solver, grid, guidance)
        info = self.describe_sampling(self.flow(**asked), final, guidance)
        settings = {"flow": asked, "final": info["final"], "seed": seed}
        rows = {"index": torch.arange(n), **(self.condition(labels, given) or {})}
        rows |= cells.rows if cells else {}
        drawn = row_sharing.spread(self.draw_rows, CHUNK, settings, rows, progress)
        evaluations = round(int(drawn["evaluations"].sum()) / n, 2)
        info |= {"n": n, "seed": seed, "evaluations_per_sample": evaluations}
        found = Samples(self.hardened(drawn["x"]), drawn["z"], labels, self.origin, info, given)
        return replace(found, known=cells)

    def hardened(self, x: Tensor) -> Tensor:
        """Decoded examples (N, *shape) in the range of data: clipped, categories one-hot."""
        if self.facts.kind == "image":
            return x.clamp(-1, 1)
        return x if self.codec is None else self.codec.harden(x)

    @torch.no_grad()
    def log_density(
        self,
        x: Tensor | pa.Table,
        label: Tensor | None = None,
        vector: Tensor | None = None,
        *,
        probes: int | None = None,
        steps: int | None = None,
        solver: str | Component | None = None,
        grid: str | Component | None = None,
        guidance: float | None = None,
        seed: int = 0,
    ) -> Density:
        """The log-density of data under the flow, in nats, with the error of its estimate.

        If the autoencoder is an affine bijection, it is the density of the data; else that of the
        latent (the posterior mean), in standardised units. `Density` records which. A flow that
        stops before t = 1 has the density of its law at that time. A final map is not included.

        For a table the density is in the columns' units. For a column on a grid it is the density
        of the dequantised numbers: a cell's probability divided by its width.

        Args:
            x: data (N, *shape), or rows of a table as in its file, conditions included.
            label: (N,) class indices; None for no condition.
            vector: (N, K) standardised conditions; None for no condition.
            probes: random signs for Hutchinson's estimator; None for the exact trace, which is
                also used up to `flows.density.EXACT` dimensions.
            solver: for a flow map "map" gives the density of its jumps by their Jacobian (see
                `monge.flows.jump_density`), a solver that of its velocity.
        """
        if isinstance(x, pa.Table):
            if self.codec is None:
                raise UserError("this run was not trained on a table with columns: give a tensor")
            x, label, vector = self.codec.encode(x)
        asked = _asked(steps, solver, grid, guidance)
        reason = self.learned.without_asked_density(asked["solver"], steps, asked["grid"], probes)
        if reason := reason or self._without_categories():
            raise UserError(f"no log-density: {reason}")
        if probes is not None and math.prod(self.autoencoder.latent_shape) <= EXACT:
            probes = None
        settings = {"flow": asked, "probes": probes, "seed": seed}
        cond = self.condition(label, vector, standardised=True) or {}
        rows = {"index": torch.arange(len(x)), "x": x, **cond}
        found = row_sharing.spread(self.density_rows, CHUNK, settings, rows)
        logs = self.autoencoder.log_abs_det_at(x)
        space = "latent" if logs is None else "data"
        value = found["value"] if logs is None else (found["value"] - logs).to(found["value"])
        return Density(value, found["stderr"], space, probes=probes or 0)

    # Tasks of `row_sharing.spread`, each on a chunk of rows.

    def tasks(self) -> tuple[row_sharing.Task, ...]:
        """The tasks of this generator that several processes can share."""
        return self.draw_rows, self.density_rows, self.decode_rows, self.reconstruct_rows

    @torch.no_grad()
    def draw_rows(
        self, settings: Mapping[str, Any], rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The samples of these indices: x, z, and the chunk's evaluations in its first row."""
        flow, index, cond = self.flow(**settings["flow"]), rows["index"], self.cond_of(rows)
        shape = tuple(self.autoencoder.latent_shape)
        draw = Draw(settings["seed"], int(index[0]), int(index[-1]) + 1, shape)
        x0 = noise(draw.seed, draw.first, draw.last, shape, "sample").to(self.device, self.dtype)
        end = flow.domain[1]
        x1 = self.learned.carried(flow, x0, draw, cond)
        latent = final_map(settings["final"], flow.field, self.path, end)(x1, end, cond).float()
        evaluations = torch.zeros_like(index)
        evaluations[0] = self.learned.evaluations(flow, len(x0))
        decoded = known_columns.put_back(self.autoencoder.decode(latent).cpu(), rows)
        return {"x": decoded, "z": latent.cpu(), "evaluations": evaluations}

    @torch.no_grad()
    def density_rows(
        self, settings: Mapping[str, Any], rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The latent log-density of rows x: value and stderr."""
        z = self.autoencoder.encode(rows["x"].to(self.device)).mean.to(self.dtype)
        flow, cond, first = self.flow(**settings["flow"]), self.cond_of(rows), int(rows["index"][0])
        probes, seed = settings["probes"], settings["seed"]
        found = self.learned.log_density(flow, z, cond, probes, seed, first)
        return {"value": found.value.cpu(), "stderr": found.stderr.cpu()}

    @torch.no_grad()
    def decode_rows(self, _: Mapping[str, Any], rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The decoded data x of latents z."""
        return {"x": self.autoencoder.decode(rows["z"].to(self.device)).cpu()}

    @torch.no_grad()
    def reconstruct_rows(
        self, _: Mapping[str, Any], rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The reconstructions x of data x."""
        return {"x": autoencoders.reconstruct(self.autoencoder, rows["x"].to(self.device)).cpu()}

    def cond_of(self, rows: Mapping[str, Tensor]) -> Cond:
        """The conditions among named rows, on the device."""
        found = {k: rows[k].to(self.device) for k in ("label", "vector") if k in rows}
        return {**found, **known_columns.latents_of_known(self, rows)} or None

    def without_density(self, solver: str | None = None) -> str | None:
        """Why data has no density; None if it has one."""
        return self.learned.without_density(solver) or self._without_categories()

    def _without_categories(self) -> str | None:
        if self.codec is None or not self.codec.categories:
            return None
        names = ", ".join(map(repr, self.codec.categories))
        return f"the columns {names} hold categories or missing values, which have no density"

    def describe_sampling(
        self, flow: Walk, final: str | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """Everything that a sample of this flow depends on, except its noise and label."""
        return {
            "solver": flow.name,
            "grid": str(flow.grid),
            "steps": len(flow.knots) - 1,
            "guidance": self.learned.guidance_of(flow, guidance),
            "final": self.final(flow, final),
            "domain": list(flow.domain),
            "source_gap": self.path.source_gap,
        }

    def final(self, flow: Walk, final: str | None = None) -> Final:
        """The final map of a flow; None means the default choice.

        Raises:
            UserError: an unknown choice.
        """
        choice = final or self.final_choice
        if choice not in FINALS:
            raise UserError(f"unknown final map {choice!r}: {nearest(choice, list(FINALS))}")
        if choice == "auto":
            return "none" if flow.domain[1] == 1 else "posterior_mean"
        return cast("Final", choice)

    def condition(
        self, label: Tensor | None, condition: Tensor | None, standardised: bool = False
    ) -> dict[str, Tensor] | None:
        """Labels (N,) and conditions (N, K) of all rows as inputs of the network."""
        cond = {} if label is None else {"label": label}
        if condition is not None:
            if not standardised:
                assert self.codec is not None
                condition = self.codec.vector_of(condition)
            cond["vector"] = condition.float()
        return cond or None

    def draw_conditions(
        self, n: int, label: Any, condition: Any, seed: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """The label of each sample, and its condition in the columns' units."""
        if not self.facts.n_vector or self.codec is None:
            if condition is not None:
                raise known_columns.refuse_columns(self.codec)
            return asked_labels(label, self.facts, n, seed), None
        if condition is not None:
            labels = asked_labels(label, self.facts, n, seed)
            return labels, conditions.asked(condition, self.codec, n)
        if self.kept is None:
            raise UserError("no conditions of training rows are known: give the condition")
        kept = self.kept()
        labels = None if label is None else asked_labels(label, self.facts, n, seed)
        rows = kept.draw(labels, n, seed)
        if labels is None and kept.label is not None:
            labels = kept.label[rows]
        return labels, kept.condition[rows]

    def training_latents(self, data: Data) -> Latents:
        """The standardised latents of training data, from the cache if they are cached."""
        wrapped = self.autoencoder
        latents = latents_of(wrapped, data.train, data.fingerprint, data.name, self.device, quiet)
        return in_units_of(wrapped, latents)

    def _repr_html_(self) -> str:
        import base64

        png = base64.b64encode(self.sample(16)._repr_png_() or b"").decode()
        return f"<b>{self.name}</b><br><img src='data:image/png;base64,{png}'>"


def _asked(steps: int | None, solver: Any, grid: Any, guidance: float | None) -> dict[str, Any]:
    """The settings of a flow, with components as texts."""
    texts = {
        family: None if value is None else JUMPS if value == JUMPS else text_of(family, value)
        for family, value in (("solver", solver), ("grid", grid))
    }
    return {"steps": steps, **texts, "guidance": guidance}


@torch.no_grad()
def _facts_of(autoencoder: Any, device: torch.device) -> DataFacts:
    """The facts of unknown data, from the shape of a decoded example."""
    example = autoencoder.decode(torch.zeros(1, *autoencoder.latent_shape, device=device))
    shape = tuple(example.shape[1:])
    return DataFacts("image" if len(shape) == 3 else "table", shape)
