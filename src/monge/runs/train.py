"""From a specification to a trained run: load, encode once, train, keep the books."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from monge import autoencoders, lock
from monge.components import FAMILIES, build
from monge.data import columns, sources
from monge.data import latents as latent_data
from monge.data.base import Data
from monge.errors import UserError, nearest
from monge.files import read_json, write_json
from monge.networks.exact import ExactNetwork
from monge.objectives.flow_matching import FlowMatching
from monge.runs import conditions
from monge.runs import folder as folders
from monge.runs.autoencoding import (
    Say,
    autoencoder_from,
    is_folder,
    is_main,
    prepare_autoencoder,
    quiet,
)
from monge.runs.card import write_card
from monge.runs.report import write_report
from monge.runs.run import Run, build_network, pick_device, set_threads
from monge.runs.spec import TrainSpec
from monge.training import checkpoint
from monge.training.loop import Fitted, LoopSpec, fit
from monge.types import Posterior

DEFAULT_STEPS = 5000
"""Training steps where neither steps nor minutes are given."""

GRIDS = 8
"""Sample grids during a run, where no interval is given."""


def train(
    spec: TrainSpec,
    data: Data | None = None,
    out: Path | None = None,
    *,
    say: Say = quiet,
) -> Run:
    """Train a run, or go on training it, in its folder.

    Args:
        data: the data, where `spec.data` does not name it.
        out: the run folder; by default ``runs/<data>-<8 hex of the specification>``.
        say: told what happens.

    Raises:
        UserError: impossible settings, a folder that holds another run, ...
        Stopped, Diverged: see `training.loop.fit`; the run can be continued.
    """
    set_threads(spec.threads)
    device = pick_device(spec.device)
    data = sources.load(spec.data, spec) if data is None else data
    spec = resolve(spec, data)
    objective = make_objective(spec, data)
    check(spec, data)
    folder = out or folders.default_folder(spec, data.name)
    with _opened(folder, spec, data, device, say):
        autoencoder = prepare_autoencoder(spec, data, folder, device, say)
        start = time.monotonic()
        posterior = latent_data.encode(autoencoder, data.train, device)
        if is_main():
            folders.add_costs(folder, encode_s=time.monotonic() - start)
        network = build_network(spec, autoencoder.latent_shape, facts_of(data))
        if not isinstance(network, ExactNetwork):
            _fit(spec, network, objective, posterior, data, folder, say)
        run = Run.load(folder, spec.device)
        if is_main():
            write_card(folder)
            write_report(folder)
    return run


@contextmanager
def _opened(
    folder: Path, spec: TrainSpec, data: Data, device: torch.device, say: Say
) -> Iterator[None]:
    """Hold and open the run folder, in the main process; the others wait until it is open."""
    state = PartialState(cpu=device.type == "cpu")
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(lock.hold(folder))
            done = checkpoint.newest_step(folder) or 0
            if spec.steps is not None and done > spec.steps:
                raise UserError(
                    f"{folder} has already done {done} steps: give --steps {done} or more, or "
                    "another folder with --out"
                )
            changed = folders.open_folder(folder, spec)
            for name, (old, new) in changed.items():
                say(f"{name}: {old} -> {new}")
            say(f"run folder {folder}")
            write_json(folder / "data.json", facts_of(data))
            _keep_reading(folder, data, say)
            folders.write_environment(folder, str(device))
            folders.journal_changes(folder, changed)
        state.wait_for_everyone()
        yield


def _keep_reading(folder: Path, data: Data, say: Say) -> None:
    """Write what reading the data found, and what turns samples into its rows again."""
    if data.report:
        write_json(folder / "data_report.json", data.report)
        for line in data.report.get("notes", ()):
            say(line)
    if data.codec is not None:
        write_json(folder / columns.FILE, data.codec.to_json())
    conditions.keep(folder, data)


def train_autoencoder(
    spec: TrainSpec, out: Path | None = None, say: Say = quiet
) -> tuple[Path, dict[str, Any]]:
    """Train an autoencoder alone, or go on training it; returns its folder and its quality."""
    set_threads(spec.threads)
    device = pick_device(spec.device)
    data = sources.load(spec.data, spec)
    spec = resolve(spec, data)
    check(spec, data)
    folder = out or Path("runs") / f"autoencoder-{data.name}-{spec.digest()}"
    with _opened(folder, spec, data, device, say):
        prepare_autoencoder(spec, data, folder, device, say)
    return folder, read_json(folder / "autoencoder" / "quality.json")


def resolve(spec: TrainSpec, data: Data) -> TrainSpec:
    """The specification with every "auto" decided for the data."""
    image = data.kind == "image"
    changes: dict[str, Any] = {}
    if spec.steps is None and spec.minutes is None:
        changes["steps"] = DEFAULT_STEPS
    if spec.network == "auto":
        changes["network"] = "transformer" if image else "mlp"
    if spec.autoencoder == "auto":
        changes["autoencoder"] = _default_conv(data) if image else "identity"
    if spec.network == "exact" and data.target is None:
        raise UserError("network exact needs a known target: monge train target:mixture:...")
    if spec.network == "exact" and changes.get("autoencoder", spec.autoencoder) != "identity":
        raise UserError("network exact lives in data space: use --autoencoder identity")
    return dataclasses.replace(spec, **changes)


def _default_conv(data: Data) -> str:
    """A latent grid of about 8 x 8, if the sides allow it."""
    sides = data.shape[1:]
    fits = [down for down in (1, 2, 4, 8) if all(side % down == 0 for side in sides)]
    wanted = [down for down in fits if min(sides) // down >= 4 and down <= max(min(sides) // 8, 2)]
    down = max(wanted, default=min(fits))
    return f"conv:down={down},channels=4"


def check(spec: TrainSpec, data: Data) -> None:
    """Refuse what would fail later, before anything is written.

    Raises:
        UserError: settings that do not fit each other or the data.
    """
    for name in ("batch", "autoencoder_steps"):
        if getattr(spec, name) < 1:
            raise UserError(f"{name} must be greater than 0, not {getattr(spec, name)}")
    for name, value in dataclasses.asdict(spec).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, not {value}")
    for name in ("seed", "weight_decay"):
        if getattr(spec, name) < 0:
            raise UserError(f"{name} must not be negative, not {getattr(spec, name)}")
    if spec.precision == "bf16" and pick_device(spec.device).type != "cuda":
        raise UserError("precision bf16 needs a CUDA device: use --precision auto or float32")
    loop_spec(spec).check()
    build("solver", spec.solver)
    build("grid", spec.grid)
    name = spec.autoencoder.partition(":")[0]
    if name not in FAMILIES["autoencoder"] and not is_folder(spec.autoencoder):
        hint = nearest(name, FAMILIES["autoencoder"])
        raise UserError(f"autoencoder {spec.autoencoder!r} is no folder and no component: {hint}")
    if is_folder(spec.autoencoder):
        shape = autoencoder_from(Path(spec.autoencoder), data).latent_shape
    else:
        shape = build("autoencoder", spec.autoencoder).build(data.shape).latent_shape
    if spec.network != "exact":
        with torch.device("meta"):  # shapes alone: costs nothing at any size
            component = build("network", spec.network)
            component.build(shape, len(data.label_names) or None, n_vector_of(data))


def make_objective(spec: TrainSpec, data: Data) -> FlowMatching:
    """The flow-matching objective of a specification."""
    given = data.train_label is not None or data.train_vector is not None
    return FlowMatching(
        path=build("path", spec.path),
        output=spec.output,
        error=spec.error,
        coupling=build("coupling", spec.coupling),
        times=build("times", spec.times),
        label_drop=spec.label_drop if given else 0.0,
    )


def facts_of(data: Data) -> dict[str, Any]:
    """What a run remembers of its data."""
    counts = []
    if data.train_label is not None:
        counts = torch.bincount(data.train_label, minlength=len(data.label_names)).tolist()
    return {
        "name": data.name,
        "text": data.text,
        "kind": data.kind,
        "shape": list(data.shape),
        "n_train": len(data.train),
        "n_heldout": len(data.heldout),
        "label_names": list(data.label_names),
        "label_counts": counts,
        "n_vector": n_vector_of(data),
        "fingerprint": data.fingerprint,
    }


def n_vector_of(data: Data) -> int:
    """Entries of the condition's vector; 0 without one."""
    return 0 if data.train_vector is None else data.train_vector.shape[1]


def loop_spec(spec: TrainSpec, **changes: Any) -> LoopSpec:
    """The loop's part of a specification."""
    names = {f.name for f in dataclasses.fields(LoopSpec)}
    shared = {k: v for k, v in dataclasses.asdict(spec).items() if k in names}
    shared["micro_batch"] = None if spec.micro_batch == "auto" else spec.micro_batch
    return LoopSpec(**{**shared, **changes})


def latent_batches(
    spec: TrainSpec, objective: FlowMatching, posterior: Posterior, data: Data
) -> latent_data.LatentBatches:
    cond = {} if data.train_label is None else {"label": data.train_label}
    if data.train_vector is not None:
        cond["vector"] = data.train_vector.float()
    plan = objective.coupling.plan_batch or 1
    span = max(1, -(-plan // spec.batch))
    return latent_data.LatentBatches(posterior, cond, objective, spec.batch, spec.seed, span)


def _fit(
    spec: TrainSpec,
    network: nn.Module,
    objective: FlowMatching,
    posterior: Posterior,
    data: Data,
    folder: Path,
    say: Say,
) -> Fitted:
    batches = latent_batches(spec, objective, posterior, data)
    parameters = sum(p.numel() for p in network.parameters())
    size = f"{parameters / 1e6:.2f} M parameters"
    if spec.steps is not None and checkpoint.newest_step(folder) == spec.steps:
        say(f"{spec.network} ({size}) has done its {spec.steps} steps")
    else:
        say(f"training {spec.network} ({size}) on {len(data.train)} latents")
    every = spec.sample_every or max(1, (spec.steps or DEFAULT_STEPS) // GRIDS)

    def show(average: nn.Module, step: int) -> None:
        run = _preview(folder, spec, average)
        run.sample(PREVIEW, _preview_labels(run)).save(folder / "samples", formats=())
        (folder / "samples" / "grid.png").replace(folder / "samples" / f"step-{step:08d}.png")

    loop = loop_spec(spec, sample_every=every)
    fitted = fit(
        network,
        objective.loss,
        batches,
        loop,
        folder=folder,
        on_sample=show,
        quiet=say is quiet,
    )
    if is_main():
        costs = {"train_s": fitted.seconds, "steps": fitted.step, "parameters": parameters}
        folders.add_costs(folder, **costs)
    return fitted


PREVIEW = 64
"""Samples in a grid during training."""


def _preview_labels(run: Run) -> str | None:
    return "all" if run.label_names else None


def _preview(folder: Path, spec: TrainSpec, average: nn.Module) -> Run:
    """The run as it stands, with the averaged weights in memory."""
    autoencoder: Any = autoencoders.load(folder / "autoencoder")
    device = next(average.parameters()).device
    facts = read_json(folder / "data.json")
    return Run(folder, spec, facts, autoencoder.to(device).eval(), average, device)
