"""From a specification to a trained run: load, encode once, train, keep the books."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import nn

from monge import autoencoders, lock, own_code, processes
from monge.components import FAMILIES, build, class_of
from monge.data import columns, sources
from monge.data import latents as latent_data
from monge.data.base import Data
from monge.data.latents import Latents
from monge.errors import UserError, nearest
from monge.files import read_json, write_atomic, write_json
from monge.fitting.autoencoding import (
    autoencoder_from,
    is_folder,
    keep_autoencoder_of,
    prepare_autoencoder,
)
from monge.fitting.map_errors import BEST_N, keep_if_best, keep_map_errors
from monge.fitting.warm_start import initialise
from monge.learned import kind_of
from monge.networks.exact import ExactNetwork
from monge.objectives.base import Objective
from monge.objectives.flow_matching import FlowMatching, ReflowSpec
from monge.progress import Say, quiet
from monge.report.card import write_card
from monge.report.report import write_report
from monge.runs import folder as folders
from monge.runs import same_data
from monge.runs.folder import read_config
from monge.runs.layout import COST, DATA, DATA_REPORT, QUALITY, SPLIT
from monge.runs.restore import build_network, pick_device, read_facts, set_threads
from monge.runs.run import Run
from monge.runs.spec import TrainSpec, plain_source
from monge.sampling import conditions
from monge.sampling.facts import DataFacts, n_vector_of
from monge.tensors import CHUNK, noise, stream
from monge.training import checkpoint
from monge.training.loop import Fitted, LoopSpec, fit
from monge.types import Posterior

DEFAULT_STEPS = 5000
"""Training steps where neither steps nor minutes are given."""

FEW = 500
"""Fewer training examples than these get dropout, and colour images their mirror images."""

FEW_DROPOUT = "dropout=0.2"

GRIDS = 8
"""Sample grids during a run, where no interval is given."""

FEWEST_BETWEEN = 100
"""Steps between them at least: one takes as long as several steps."""


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
    processes.join()
    spec = folders.adopted(spec)
    if data is None:
        data = _load(spec, say)
    for line in data.summary:
        say(line)
    spec = resolve(spec, data, out)
    teacher = None if spec.teacher is None else Run.load(spec.teacher, spec.device)
    kind = kind_of(spec.objective)
    if teacher is not None and kind.follows_teacher and spec.precision == "float64":
        teacher.network.double()
    objective = make_objective(spec, data, teacher)
    folder = out or folders.default_folder(spec, data.name)
    data = same_data.checked(data, folder, spec.changed_data)
    processes.wait()
    check(spec, data, folder)
    facts = DataFacts.of(data, kind.facts(objective))
    with _opened(folder, spec, data, facts, device, say):
        if teacher is not None and processes.is_main():
            keep_autoencoder_of(teacher.folder, folder)
        processes.wait()
        autoencoder, latents = prepare_autoencoder(spec, data, folder, device, say)
        network = build_network(spec, autoencoder.latent_shape, facts)
        if not isinstance(network, ExactNetwork):
            taught = teacher is not None and not isinstance(teacher.network, ExactNetwork)
            start = spec.teacher if taught else spec.init_from
            if start is not None and checkpoint.newest_step(folder) is None:
                initialise(network, Path(start), data.label_names, say, needed=not taught)
            _fit(spec, network, objective, latents, data, folder, say, teacher)
        run = Run.load(folder, spec.device)
        if processes.is_main():
            if run.learned.error_steps:
                say("measuring the map against the flow that it follows")
                keep_map_errors(run, None if teacher else _heldout_loss(run, data))
            write_card(folder)
            write_report(folder)
    return run


def _load(spec: TrainSpec, say: Say) -> Data:
    """The data; the main process decodes what is not in the cache yet, and tells of it."""
    with processes.main_first():
        return sources.load(spec.data, spec, say, spec.check_cache)


@contextmanager
def _opened(
    folder: Path,
    spec: TrainSpec,
    data: Data,
    facts: DataFacts,
    device: torch.device,
    say: Say,
) -> Iterator[None]:
    """Hold and open the run folder, in the main process; the others wait until it is open."""
    with ExitStack() as stack:
        if processes.is_main():
            folders.require_free(folder)
            stack.enter_context(lock.hold(folder))
            changed = folders.open_folder(folder, spec, checkpoint.newest_step(folder) or 0)
            changed |= same_data.changes(folder, facts)
            for name, (old, new) in changed.items():
                say(f"{name}: {old} -> {new}")
            say(f"run folder {folder}")
            write_json(folder / DATA, facts.to_json())
            _keep_reading(folder, data)
            folders.write_environment(folder, str(device))
            folders.journal_changes(folder, changed)
        if not processes.share_folder(folder):
            raise UserError(
                f"the run folder {folder} is not one folder for all processes: choose one with "
                "--out on a disk that all machines share"
            )
        yield


def _keep_reading(folder: Path, data: Data) -> None:
    """What reading found, which examples are on which side of the split, and a table's codec."""
    if data.report:
        write_json(folder / DATA_REPORT, {"format_version": 1, **data.report})
    if data.rows is not None:
        train, heldout = data.rows
        write_atomic(folder / SPLIT, to_bytes({"train": train, "heldout": heldout}))
    if data.codec is not None:
        write_json(folder / columns.FILE, data.codec.to_json())
    conditions.keep(folder, data)


def train_autoencoder(
    spec: TrainSpec, out: Path | None = None, say: Say = quiet
) -> tuple[Path, dict[str, Any]]:
    """Train an autoencoder alone, or go on training it; returns its folder and its quality."""
    set_threads(spec.threads)
    device = pick_device(spec.device)
    processes.join()
    spec = folders.adopted(spec)
    data = _load(spec, say)
    for line in data.summary:
        say(line)
    spec = resolve(spec, data, out)
    folder = out or Path("runs") / f"autoencoder-{data.name}-{spec.digest()}"
    data = same_data.checked(data, folder, spec.changed_data)
    processes.wait()
    check(spec, data, folder)
    with _opened(folder, spec, data, DataFacts.of(data), device, say):
        prepare_autoencoder(spec, data, folder, device, say)
    return folder, read_json(folder / QUALITY)


def resolve(spec: TrainSpec, data: Data, folder: Path | None = None) -> TrainSpec:
    """The specification with every "auto" decided for the data, its components in short texts.

    Args:
        folder: of the run, if it is known already; see `check`.
    """
    image, few = data.kind == "image", len(data.train) < FEW
    changes: dict[str, Any] = {"data": plain_source(spec.data)}
    if spec.steps is None and spec.minutes is None:
        changes["steps"] = DEFAULT_STEPS
    if spec.network == "auto" and spec.init_from is not None:
        changes["network"] = read_config(Path(spec.init_from)).network
    if spec.autoencoder == "auto" and spec.init_from is not None:
        changes["autoencoder"] = spec.init_from
    elif spec.autoencoder == "auto":
        changes["autoencoder"] = _default_conv(data) if image else "identity"
    kind = kind_of(spec.objective)
    if spec.network == "auto" and spec.init_from is None:
        shape = _latent_shape(dataclasses.replace(spec, **changes), data, folder)
        changes["network"] = kind.default_network(_default_network(shape), FEW_DROPOUT * few)
    changes["network"] = for_kind(changes.get("network", spec.network), spec)
    if spec.grid == "auto":
        changes["grid"] = f"uniform:n={kind.default_steps}"
    if spec.flip == "auto":
        # Grey images are often digits and letters, whose mirror images mean something else.
        changes["flip"] = "yes" if image and few and data.shape[0] == 3 else "no"
    if spec.flip == "yes" and not image:
        raise UserError("flip is for images: leave it out")
    if spec.network == "exact" and data.target is None:
        raise UserError("network exact needs a known target: monge train target:mixture:...")
    if spec.network == "exact" and changes.get("autoencoder", spec.autoencoder) != "identity":
        raise UserError("network exact lives in data space: use --autoencoder identity")
    return folders.in_short(dataclasses.replace(spec, **changes))


def for_kind(network: str, spec: TrainSpec) -> str:
    """The network with what the kind of model needs of it."""
    component = build("network", network)
    wanted = kind_of(spec.objective).network_of(component, spec)
    return network if wanted == component else repr(wanted)


def _default_network(latent_shape: tuple[int, ...]) -> str:
    """A transformer for grids, of at most a quarter as many tokens as cells where those are many.

    On a CPU sixteen tokens learn far more in the same time than sixty-four (docs/log.md).
    """
    if len(latent_shape) != 3:
        return "mlp"
    sides = latent_shape[1:]
    halved = min(sides) >= 8 and all(side % 2 == 0 for side in sides)
    return "transformer:patch=2" if halved else "transformer"


def _default_conv(data: Data) -> str:
    """A latent grid of about 8 x 8 with even sides, to which images are padded."""
    sides = data.shape[1:]
    grids = {down: -(-min(sides) // (2 * down)) * 2 for down in (1, 2, 4, 8)}
    down = max(d for d, grid in grids.items() if d == 1 or grid >= (4 if d == 2 else 8))
    padded = any(side % (2 * down) for side in sides)
    return f"conv:down={down},channels=4" + ",multiple=2" * padded


def check(spec: TrainSpec, data: Data, folder: Path | None = None) -> None:
    """Refuse what would fail later, before anything is written.

    A run whose folder has its autoencoder goes on without what that was made from.

    Raises:
        UserError: settings that do not fit each other or the data.
    """
    kind_of(spec.objective).check(spec, spec.teacher is not None)
    for name in ("batch", "autoencoder_steps"):
        if (value := getattr(spec, name)) is not None and value < 1:
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
    shape = _latent_shape(spec, data, folder)
    if spec.network != "exact":
        with torch.device("meta"):  # shapes alone: costs nothing at any size
            component = build("network", spec.network)
            component.build(shape, len(data.label_names) or None, n_vector_of(data))


def _latent_shape(spec: TrainSpec, data: Data, folder: Path | None) -> tuple[int, ...]:
    """The shape of the latents that the autoencoder of a specification gives the data."""
    try:
        return _built_shape(spec, data)
    except UserError:
        kept = folder / "autoencoder" / autoencoders.SETTINGS if folder else None
        if kept is None or not kept.exists():
            raise
        settings = read_json(kept)
        if tuple(settings["data_shape"]) != data.shape:
            raise
        return tuple(settings["latent_shape"])


def _built_shape(spec: TrainSpec, data: Data) -> tuple[int, ...]:
    name = spec.autoencoder.partition(":")[0]
    if is_folder(spec.autoencoder):
        return autoencoder_from(Path(spec.autoencoder), data).latent_shape
    if name not in FAMILIES["autoencoder"] and not own_code.is_own(spec.autoencoder):
        hint = nearest(name, FAMILIES["autoencoder"])
        raise UserError(f"autoencoder {spec.autoencoder!r} is no folder and no component: {hint}")
    return build("autoencoder", spec.autoencoder).build(data.shape).latent_shape


def make_matching(spec: TrainSpec, data: Data) -> FlowMatching:
    """The flow matching of a specification: its path, output, coupling and times."""
    given = data.train_label is not None or data.train_vector is not None
    return FlowMatching(
        path=build("path", spec.path),
        output=spec.output,
        error=spec.error,
        coupling=build("coupling", spec.coupling),
        times=build("times", spec.times),
        label_drop=spec.label_drop if given else 0.0,
    )


def make_objective(spec: TrainSpec, data: Data, teacher: Run | None = None) -> Objective:
    """The objective of a specification."""
    matching = make_matching(spec, data)
    if teacher is None and spec.guidance_range != (1.0, 1.0):
        raise UserError("teacher guidance is for distilling: monge distil RUN --guidance ..")
    learned = None if teacher is None else teacher.learned
    return kind_of(spec.objective).objective(spec, matching, learned)


def loop_spec(spec: TrainSpec, **changes: Any) -> LoopSpec:
    """The loop's part of a specification."""
    names = {f.name for f in dataclasses.fields(LoopSpec)}
    shared = {k: v for k, v in dataclasses.asdict(spec).items() if k in names}
    shared["micro_batch"] = None if spec.micro_batch == "auto" else spec.micro_batch
    return LoopSpec(**{**shared, **changes})


def latent_batches(
    spec: TrainSpec, objective: Objective, latents: Latents, data: Data
) -> latent_data.LatentBatches:
    cond = {} if data.train_label is None else {"label": data.train_label}
    if data.train_vector is not None:
        cond["vector"] = data.train_vector.float()
    plan = objective.coupling.plan_batch or 1
    span = max(1, -(-plan // spec.batch))
    return latent_data.LatentBatches(latents, cond, objective, spec.batch, spec.seed, span)


def _fit(
    spec: TrainSpec,
    network: nn.Module,
    objective: Objective,
    latents: Latents,
    data: Data,
    folder: Path,
    say: Say,
    teacher: Run | None = None,
) -> Fitted:
    batches = latent_batches(spec, objective, latents, data)
    if class_of("objective", spec.objective) is ReflowSpec:
        assert teacher is not None
        batches = reflow_batches(spec, objective, data, teacher, say)
    parameters = sum(p.numel() for p in network.parameters())
    size = f"{parameters / 1e6:.2f} M parameters"
    if spec.steps is not None and checkpoint.newest_step(folder) == spec.steps:
        say(f"{spec.network} ({size}) has done its {spec.steps} steps")
    else:
        say(f"training {spec.network} ({size}) on {len(latents)} latents")
    every = spec.sample_every or max(FEWEST_BETWEEN, (spec.steps or DEFAULT_STEPS) // GRIDS)

    def show(average: nn.Module, step: int) -> None:
        run = _preview(folder, spec, average)
        shown = run.sample(PREVIEW, _preview_labels(run)).grid_png()
        write_atomic(folder / "samples" / f"step-{step:08d}.png", shown)
        if run.learned.error_steps:
            keep_if_best(run, step, 0.0 if teacher else _heldout_loss(run, data))

    loop = loop_spec(spec, sample_every=every, minutes=_minutes_left(spec, folder))
    fitted = fit(
        network,
        objective.loss,
        batches,
        loop,
        folder=folder,
        on_sample=show,
        quiet=say is quiet,
    )
    if processes.is_main():
        costs = {"train_s": fitted.seconds, "steps": fitted.step, "parameters": parameters}
        folders.add_costs(folder, **costs)
    return fitted


def reflow_batches(
    spec: TrainSpec,
    objective: Objective,
    data: Data,
    teacher: Run,
    say: Say,
) -> latent_data.LatentBatches:
    """Noise, and what the teacher makes of it, for as many as there are training examples."""
    n = len(data.train)
    say(f"drawing {n} pairs of noise and samples from {teacher.folder}")
    shape = tuple(teacher.autoencoder.latent_shape)
    guidance = spec.guidance_range[0]
    flow = teacher.learned.deterministic(guidance)
    x0 = noise(spec.seed, 0, n, shape, "reflow")
    cond = {} if data.train_label is None else {"label": data.train_label}
    if data.train_vector is not None:
        cond["vector"] = data.train_vector.float()
    ends = []
    with torch.no_grad():
        for rows in torch.arange(n).split(CHUNK):
            given = {k: c[rows].to(teacher.device) for k, c in cond.items()}
            start = x0[rows].to(teacher.device)
            ends.append(flow(start, *flow.domain, given or None).cpu())
    posterior = Posterior(torch.cat(ends))
    # What a batch brings as x0 is its noise, as if it were a condition.
    return latent_data.LatentBatches(
        posterior, {**cond, "x0": x0}, objective, spec.batch, spec.seed
    )


def _minutes_left(spec: TrainSpec, folder: Path) -> float | None:
    """The network's minutes: what the autoencoder, which has a third at most, has left."""
    costs = folder / COST
    if spec.minutes is None or not costs.exists():
        return spec.minutes
    spent = read_json(costs).get("autoencoder_s", 0.0) / 60
    return max(spec.minutes - spent, 0.5 * spec.minutes)


PREVIEW = 64
"""Samples in a grid during training."""


@torch.no_grad()
def _heldout_loss(run: Run, data: Data) -> float:
    """What flow matching loses on held-out examples, with the same draws each time."""
    rows = slice(0, BEST_N)
    given = {"label": data.heldout_label, "vector": data.heldout_vector}
    batch = {name: x[rows].to(run.device) for name, x in given.items() if x is not None}
    x = data.heldout[rows].to(run.device)
    batch["x1"] = run.autoencoder.encode(x).mean.to(next(run.network.parameters()))
    matching = make_matching(run.spec, data)
    drawn = matching.draw(batch, stream(run.spec.seed, "best"))
    return float(matching.loss(run.network, drawn).per_example.mean())


def _preview_labels(run: Run) -> str | None:
    return "all" if run.label_names else None


def _preview(folder: Path, spec: TrainSpec, average: nn.Module) -> Run:
    """The run as it stands, with the averaged weights in memory."""
    autoencoder: Any = autoencoders.load(folder / "autoencoder")
    device = next(average.parameters()).device
    facts = read_facts(folder)
    return Run.of(folder, spec, facts, autoencoder.to(device).eval(), average, device)
