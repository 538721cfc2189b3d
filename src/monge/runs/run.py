"""A trained run: its flow, its samples, and how it travels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa
import torch
from torch import Tensor, nn

from monge import autoencoders, row_sharing
from monge.components import build
from monge.data import columns as table_columns
from monge.data import sources
from monge.data.base import Data
from monge.data.columns import TableCodec
from monge.errors import UserError, nearest
from monge.fields import Counted, Final, Guided, Predict, final_map
from monge.files import read_json, refuse_links
from monge.flows import Composed, Density, Integrated, log_density
from monge.flows.density import EXACT
from monge.flows.jump_density import jump_log_density
from monge.networks.exact import ExactNetwork
from monge.paths import Path as InterpolationPath
from monge.runs import conditions, jumps, sharing
from monge.runs.folder import read_config
from monge.runs.labels import asked_labels
from monge.runs.restoring import build_network, load_weights, pick_device, read_facts
from monge.runs.samples import Samples
from monge.runs.spec import TrainSpec
from monge.tensors import noise
from monge.types import Cond, VelocityField

if TYPE_CHECKING:
    from monge.runs.encoding import Encoded, Kind

REFERENCE = 2000
"""Held-out examples that are shown beside samples, at most."""

CHUNK = 256
"""Examples sampled at once; results do not depend on it."""


@dataclass(repr=False)
class Run:
    """A trained model in its folder.

    >>> run = monge.load("runs/digits-1a2b3c4d")          # doctest: +SKIP
    >>> run.sample(16, label="3").grid().save("threes.png")  # doctest: +SKIP
    """

    folder: Path
    spec: TrainSpec
    facts: dict[str, Any]
    autoencoder: Any
    network: nn.Module
    device: torch.device
    weights: Literal["ema", "model", "best"] = "ema"

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        weights: Literal["ema", "model", "best"] = "ema",
    ) -> Run:
        """The run in a folder, for sampling and evaluation.

        Raises:
            UserError: no finished run there, files of a newer format, or a changed autoencoder.
        """
        folder = Path(folder)
        refuse_links(folder)
        spec = read_config(folder)
        where = pick_device(device)
        facts = read_facts(folder)
        if not (folder / "autoencoder" / "autoencoder.json").exists():
            raise UserError(f"{folder} is not trained yet: run its `monge train` command again")
        autoencoder = autoencoders.load(folder / "autoencoder").to(where).eval()
        network = build_network(spec, autoencoder.latent_shape, facts)
        if not isinstance(network, ExactNetwork):
            file = folder / f"{weights}.safetensors"
            if not file.exists():
                raise UserError(
                    f"{folder} has no {file.name}: train it for some steps first, or, if it is "
                    f"an autoencoder alone, use it by monge train SOURCE --autoencoder {folder}"
                )
            load_weights(network, file)
        return cls(folder, spec, facts, autoencoder, network.to(where).eval(), where, weights)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.spec.data}, {self.spec.network})"

    @cached_property
    def path(self) -> InterpolationPath:
        return build("path", self.spec.path)

    @property
    def field(self) -> Predict:
        """The learned velocity field, in standardised latent units."""
        return Predict(self.network, self.path, self.spec.output)

    @property
    def label_names(self) -> list[str]:
        return self.facts["label_names"]

    @cached_property
    def codec(self) -> TableCodec | None:
        """What the columns of the run's table were; None for other data."""
        path = self.folder / table_columns.FILE
        return TableCodec.from_json(read_json(path), str(path)) if path.exists() else None

    @cached_property
    def teacher(self) -> Run | None:
        """The run that this one was distilled from, as precise as it; None without one.

        Raises:
            UserError: it is not where it was.
        """
        if self.spec.teacher is None:
            return None
        if not Path(self.spec.teacher).is_dir():
            raise UserError(
                f"{self.folder} was distilled from {self.spec.teacher}, which is not there any "
                "more: put it back to compare the map with it; sampling does not need it"
            )
        teacher = Run.load(self.spec.teacher, str(self.device))
        own = next(self.network.parameters(), None)
        if own is not None:
            teacher.network.to(own.dtype)
        return teacher

    def guided_field(self, scale: float) -> VelocityField:
        """The velocity field at a guidance scale: of a map its own, at one it was trained with.

        Raises:
            UserError: a map without a velocity, or another scale.
        """
        if self.spec.is_map:
            return jumps.velocity(self, scale)
        return self.field if scale == 1 else Guided(self.field, scale)

    def followed(self, guidance: float | None = None) -> VelocityField:
        """The velocity field whose flow samples: a map's teacher's, guided, or the run's own.

        Raises:
            UserError: a map without a teacher that has no velocity either.
        """
        if not self.spec.is_map:
            return self.flow(guidance=guidance).field
        scale = jumps.scale_of(self.spec, guidance)
        return (self.teacher or self).guided_field(scale)

    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> Integrated | Composed:
        """The flow map that samples: the run's settings, with those given here instead.

        A learned map jumps along the grid, and its velocity is integrated where a solver is named.
        """
        points = build("grid", grid or self.spec.grid)
        if steps is not None:
            points = dataclasses.replace(points, n=steps)
        if self.spec.is_map and solver in (None, jumps.SOLVER):
            learned = jumps.learned_map(self, guidance)
            if points.stop < learned.domain[1] and jumps.only_to_data(self.spec):
                raise UserError(
                    f"this map jumps to the data alone: a grid cannot stop at {points.stop:g}"
                )
            return Composed(learned, points)
        if solver == jumps.SOLVER:
            raise UserError(
                f"this run is no flow map: name a solver, or make one by monge distil {self.folder}"
            )
        velocity = Counted(self.field)
        scale = self.spec.guidance if guidance is None else guidance
        if self.spec.is_map:
            velocity = Counted(jumps.velocity(self, guidance))
            return Integrated(velocity, build("solver", solver or "heun"), points)
        if not math.isfinite(scale):
            raise UserError(f"guidance must be a finite number, not {scale}")
        if scale != 1 and not self.label_names and not self.facts.get("n_vector"):
            raise UserError("guidance needs a run with labels or conditions; this one has none")
        guided = velocity if scale == 1 else Guided(velocity, scale)
        return Integrated(guided, build("solver", solver or self.spec.solver), points)

    @torch.no_grad()
    def sample(
        self,
        n: int = 16,
        label: str | int | Sequence[str | int] | Tensor | None = None,
        *,
        condition: str | Mapping[str, float] | Tensor | None = None,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
        final: str | None = None,
        seed: int = 0,
        progress: Any = None,
    ) -> Samples:
        """n samples. Sample i depends on (seed, i) alone, given its label and condition.

        Args:
            label: a label's name or index, several of them, "all", or one index per sample
                (N,); None draws labels by their frequency in the training data.
            condition: of a table with condition columns, in their units: "a=3.5,b=1", or a
                mapping, or one row per sample (N, K); None draws those of training rows (with
                their labels, or of the sample's label).
            steps: of the solver; replaces the grid's own number.
            progress: called with the number of samples just finished.

        Raises:
            UserError: an unknown label or condition, or settings that do not fit the run.
        """
        if not isinstance(n, int) or n < 1:
            raise UserError(f"the number of samples must be at least 1, not {n}")
        labels, given = self.draw_conditions(n, label, condition, seed)
        asked = {"steps": steps, "solver": solver, "grid": grid, "guidance": guidance}
        info = self.describe_sampling(self.flow(**asked), final, guidance)
        settings = {"flow": asked, "final": info["final"], "seed": seed}
        rows = {"index": torch.arange(n), **(self.condition(labels, given) or {})}
        drawn = row_sharing.spread(self.draw_rows, CHUNK, settings, rows, progress)
        decoded = drawn["x"]
        if self.facts["kind"] == "image":
            decoded = decoded.clamp(-1, 1)
        elif self.codec is not None:
            decoded = self.codec.harden(decoded)
        evaluations = round(int(drawn["evaluations"].sum()) / n, 2)
        info |= {"n": n, "seed": seed, "evaluations_per_sample": evaluations}
        return Samples(decoded, drawn["z"], labels, self, info, given)

    @torch.no_grad()
    def log_density(
        self,
        x: Tensor | pa.Table,
        label: Tensor | None = None,
        vector: Tensor | None = None,
        *,
        probes: int | None = None,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
        seed: int = 0,
    ) -> Density:
        """log-density of data under the flow, in nats, with the error of its estimate.

        It is of data where the autoencoder is an affine bijection, and says so; elsewhere of the
        latent (its posterior mean), in standardised units. A flow that stops before t = 1 has the
        density of its law there. The final map, if any, is not part of it.

        Of a table it is in the columns' own units; that of a column on a grid is the density of
        the dequantised numbers, a cell's probability over its width.

        Args:
            x: (N, *shape), data; or rows of a table as its file has them, conditions included.
            label: (N,) class indices; None for no condition.
            vector: (N, K) standardised conditions; None for no condition.
            probes: random signs for Hutchinson's estimator; None for the exact trace, which is
                also taken up to `flows.density.EXACT` dimensions.
            solver: of a flow map "map" for the density of its jumps, by their own Jacobian (see
                `monge.flows.jump_density`), or another for that of its velocity.
        """
        if isinstance(x, pa.Table):
            if self.codec is None:
                raise UserError("this run was not trained on a table with columns: give a tensor")
            x, label, vector = self.codec.encode(x)
        if self.spec.is_map and solver == jumps.SOLVER:
            reason = self._without_jump_density(steps, grid, probes)
        else:
            reason = self.without_density(solver)
        if reason:
            raise UserError(f"no log-density: {reason}")
        asked = {"steps": steps, "solver": solver, "grid": grid, "guidance": guidance}
        if probes is not None and math.prod(self.autoencoder.latent_shape) <= EXACT:
            probes = None
        settings = {"flow": asked, "probes": probes, "seed": seed}
        cond = self.condition(label, vector, standardised=True) or {}
        rows = {"index": torch.arange(len(x)), "x": x, **cond}
        found = row_sharing.spread(self.density_rows, CHUNK, settings, rows)
        log_abs_det = self.autoencoder.log_abs_det
        space = "latent" if log_abs_det is None else "data"
        value = found["value"] - (log_abs_det or 0.0)
        return Density(value, found["stderr"], space, probes=probes or 0)

    def encode(self, source: str | Path | Tensor, to: Kind = "noise", **settings: Any) -> Encoded:
        """The noise or the latents of data; see `encoding.encode`."""
        from monge.runs import encoding

        return encoding.encode(self, source, to, **settings)

    def decode(self, encoded: Encoded | Tensor | str | Path, **settings: Any) -> Samples:
        """The data of noise or latents; see `encoding.decode`."""
        from monge.runs import encoding

        return encoding.decode(self, encoded, **settings)

    def interpolate(
        self, encoded: Encoded | Tensor | str | Path, frames: int = 8, **settings: Any
    ) -> list[Samples]:
        """What lies between each row of an encoding and the next; see `encoding.interpolate`."""
        from monge.runs import encoding

        return encoding.interpolate(self, encoded, frames, **settings)

    # What processes share: tasks of `row_sharing.spread`, on a chunk of rows each.

    def tasks(self) -> tuple[row_sharing.Task, ...]:
        """What several processes may share of the work of this run."""
        return self.draw_rows, self.density_rows, self.decode_rows, self.reconstruct_rows

    @torch.no_grad()
    def draw_rows(
        self, settings: Mapping[str, Any], rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The samples of these indices: x, z, and the chunk's evaluations, on its first row."""
        flow, index, cond = self.flow(**settings["flow"]), rows["index"], self._cond_of(rows)
        start, stop = int(index[0]), int(index[-1]) + 1
        drawn = (settings["seed"], start, stop, self.autoencoder.latent_shape)
        x0 = noise(*drawn, "sample").to(self.device, self._dtype)
        end = flow.domain[1]
        if isinstance(flow, Composed) and jumps.only_to_data(self.spec):
            x1 = jumps.renoised(flow, self.path, x0, drawn, cond)
        else:
            x1 = flow(x0, *flow.domain, cond)
        latent = final_map(settings["final"], flow.field, self.path, end)(x1, end, cond).float()
        evaluations = torch.zeros_like(index)
        evaluations[0] = _evaluated(flow, len(x0))
        decoded = self.autoencoder.decode(latent)
        return {"x": decoded.cpu(), "z": latent.cpu(), "evaluations": evaluations}

    @torch.no_grad()
    def density_rows(
        self, settings: Mapping[str, Any], rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The latent log-density of rows x, its value and stderr."""
        z = self.autoencoder.encode(rows["x"].to(self.device)).mean.to(self._dtype)
        flow = self.flow(**settings["flow"])
        if isinstance(flow, Composed):
            found = jump_log_density(flow, z, self._cond_of(rows))
            return {"value": found.value.cpu(), "stderr": found.stderr.cpu()}
        found = log_density(
            flow,
            z,
            self._cond_of(rows),
            probes=settings["probes"],
            seed=settings["seed"],
            first=int(rows["index"][0]),
        )
        return {"value": found.value.cpu(), "stderr": found.stderr.cpu()}

    @torch.no_grad()
    def decode_rows(self, _: Mapping[str, Any], rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The data x of latents z."""
        return {"x": self.autoencoder.decode(rows["z"].to(self.device)).cpu()}

    @torch.no_grad()
    def reconstruct_rows(
        self, _: Mapping[str, Any], rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The reconstructions x of data x."""
        return {"x": autoencoders.reconstruct(self.autoencoder, rows["x"].to(self.device)).cpu()}

    def _cond_of(self, rows: Mapping[str, Tensor]) -> Cond:
        names = ("label", "vector")
        return {k: rows[k].to(self.device) for k in names if k in rows} or None

    @property
    def _dtype(self) -> torch.dtype:
        """In which the network computes."""
        return next((p.dtype for p in self.network.parameters()), torch.float32)

    def without_density(self, solver: str | None = None) -> str | None:
        """Why data of this run has no density; None where it has one."""
        if self.spec.is_map and solver in (None, jumps.SOLVER):
            return (
                "the jumps of a map have the density of their own Jacobian, which is not that of "
                f"the integrated velocity: ask for the former by solver={jumps.SOLVER!r}, for the "
                "latter by another"
            )
        return self._without_categories()

    def _without_jump_density(
        self, steps: int | None, grid: str | None, probes: int | None
    ) -> str | None:
        """Why the jumps of this map have no density; None where they have one."""
        if probes is not None:
            return "that of jumps is exact: leave out probes"
        if not jumps.has_velocity(self.spec):
            return "this map has no velocity, along which the start of a jump is looked for"
        if jumps.only_to_data(self.spec) and len(self.flow(steps, grid=grid).knots) > 2:
            return "more jumps than one draw new noise between them: steps=1 has a density"
        return self._without_categories()

    def _without_categories(self) -> str | None:
        if self.codec is None or not self.codec.categories:
            return None
        names = ", ".join(map(repr, self.codec.categories))
        return f"the categorical columns {names} take single values, which have no density"

    def describe_sampling(
        self, flow: Integrated | Composed, final: str | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """Everything that a sample of this flow depends on, besides its noise and label."""
        guided = flow.field
        scale = guided.scale if isinstance(guided, Guided) else 1.0
        return {
            "solver": str(flow.solver) if isinstance(flow, Integrated) else jumps.SOLVER,
            "grid": str(flow.grid),
            "steps": len(flow.knots) - 1,
            "guidance": jumps.scale_of(self.spec, guidance) if self.spec.is_map else scale,
            "final": self.final(flow, final),
            "domain": list(flow.domain),
            "source_gap": self.path.source_gap,
        }

    def final(self, flow: Integrated | Composed, final: str | None = None) -> Final:
        """The final map of a flow: the one given, else the run's own.

        Raises:
            UserError: an unknown one.
        """
        choice = final or self.spec.final
        if choice not in ("auto", "none", "divide", "posterior_mean"):
            known = ["auto", "none", "divide", "posterior_mean"]
            raise UserError(f"unknown final map {choice!r}: {nearest(choice, known)}")
        if choice == "auto":
            return "none" if flow.domain[1] == 1 else "posterior_mean"
        return cast("Final", choice)

    def condition(
        self, label: Tensor | None, condition: Tensor | None, standardised: bool = False
    ) -> dict[str, Tensor] | None:
        """Labels (N,) and conditions (N, K) as the network takes them, for all rows."""
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
        """The label and the condition, in its own units, of each sample."""
        if not self.facts.get("n_vector") or self.codec is None:
            if condition is not None:
                raise UserError("this run has no condition columns: leave out the condition")
            return asked_labels(label, self.facts, n, seed), None
        if condition is not None:
            labels = asked_labels(label, self.facts, n, seed)
            return labels, conditions.asked(condition, self.codec, n)
        kept = conditions.kept(self.folder)
        labels = None if label is None else asked_labels(label, self.facts, n, seed)
        rows = kept.draw(labels, n, seed)
        if labels is None and kept.label is not None:
            labels = kept.label[rows]
        return labels, kept.condition[rows]

    def data(self) -> Data:
        """The data the run was trained on, loaded again.

        Raises:
            UserError: it was arrays in memory, or it is not the same any more.
        """
        if self.facts["text"] is None:
            raise UserError("this run was trained on arrays in memory: pass them as data=")
        data = sources.load(self.facts["text"], self.spec)
        if data.fingerprint != self.facts["fingerprint"]:
            raise UserError(
                f"the data {self.facts['text']!r} has changed since the run was trained "
                f"(fingerprint {self.facts['fingerprint']}, now {data.fingerprint})"
            )
        return data

    def check_formats(self, formats: Sequence[str] | None) -> list[str]:
        """The formats to write samples in, all of them possible; by default pictures or csv.

        Raises:
            UserError: an unknown one, with the nearest.
        """
        image = self.facts["kind"] == "image"
        known = ["png", "npz"] if image else ["csv", "npz", "parquet"]
        if "npz" in (formats or ()) and self.codec is not None and self.codec.words:
            raise UserError(
                f"npz holds numbers, but the columns {', '.join(map(repr, self.codec.words))} do "
                "not: write csv or parquet"
            )
        chosen = [formats] if isinstance(formats, str) else formats
        for form in chosen or []:
            if form not in known:
                raise UserError(
                    f"cannot write samples of this run as {form!r}: {nearest(form, known)}"
                )
        return known[:1] if chosen is None else list(chosen)

    def reference(self) -> Tensor | None:
        """Held-out examples to show beside samples; None where the data is not at hand."""
        try:
            return self.data().heldout[:REFERENCE]
        except UserError:
            return None

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write what sampling needs to a folder: settings, weights, autoencoder and model card."""
        return sharing.save(self.folder, Path(folder))

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto") -> Run:
        """A run from a folder, or by its name on the Hugging Face hub."""
        return cls.load(sharing.fetch(name), device)

    def push_to_hub(self, repo: str, private: bool = True) -> str:
        """Upload the run to the Hugging Face hub; returns its address."""
        return sharing.push(self.folder, repo, private)

    def _repr_html_(self) -> str:
        import base64

        png = base64.b64encode(self.sample(16)._repr_png_() or b"").decode()
        return f"<b>{self.folder}</b><br><img src='data:image/png;base64,{png}'>"


def _evaluated(flow: Integrated | Composed, rows: int) -> int:
    """On how many rows the network was evaluated."""
    if isinstance(flow, Composed):
        return rows * (len(flow.knots) - 1)  # one a jump
    inner = flow.field.field if isinstance(flow.field, Guided) else flow.field
    assert isinstance(inner, Counted)
    return inner.counts["rows"]
