"""From a specification to a trained run: load, encode once, train, keep the books."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from monge import autoencoders
from monge.autoencoders import (
    AutoencoderModule,
    Standardised,
    psnr,
    reconstruct,
    standardise,
)
from monge.autoencoders.base import size_of
from monge.autoencoders.pca import PCASpec
from monge.components import FAMILIES, build
from monge.data import latents as latent_data
from monge.data import sources
from monge.data.sources import Data
from monge.errors import UserError, nearest
from monge.files import read_json, write_json
from monge.networks.exact import ExactNetwork
from monge.objectives.flow_matching import FlowMatching
from monge.runs import folder as folders
from monge.runs import images
from monge.runs.card import write_card
from monge.runs.report import write_report
from monge.runs.run import Run, build_network, pick_device, set_threads
from monge.runs.spec import TrainSpec
from monge.training import checkpoint, lock
from monge.training.loop import Fitted, LoopSpec, fit
from monge.types import Posterior

DEFAULT_STEPS = 5000
"""Training steps where neither steps nor minutes are given."""

GRIDS = 8
"""Sample grids during a run, where no interval is given."""

Say = Callable[[str], None]
"""Where progress notes go, a line each."""


def quiet(_: str) -> None:
    """Say nothing."""


def train(
    spec: TrainSpec,
    data: Data | None = None,
    out: Path | None = None,
    *,
    dry_run: bool = False,
    say: Say = quiet,
) -> Run | None:
    """Train a run, or go on training it, in its folder.

    Args:
        data: the data, where `spec.data` does not name it.
        out: the run folder; by default ``runs/<data>-<8 hex of the specification>``.
        dry_run: time a few steps and stop, leaving no folder behind; returns None.
        say: told what happens.

    Raises:
        UserError: impossible settings, a folder that holds another run, ...
        Stopped, Diverged: see `training.loop.fit`; the run can be continued.
    """
    set_threads(spec.threads)
    device = pick_device(spec.device)
    data = sources.load(spec.data) if data is None else data
    spec = resolve(spec, data)
    objective = make_objective(spec, data)
    check(spec, data)
    if dry_run:
        _rehearse(spec, data, objective, say)
        return None
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


def is_main() -> bool:
    """Whether this is the process that writes: the only one, or the first of several."""
    return int(os.environ.get("RANK", 0)) == 0


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
            folders.write_environment(folder, str(device))
            folders.journal_changes(folder, changed)
        state.wait_for_everyone()
        yield


def train_autoencoder(
    spec: TrainSpec, out: Path | None = None, say: Say = quiet
) -> tuple[Path, dict[str, Any]]:
    """Train an autoencoder alone, or go on training it; returns its folder and its quality."""
    set_threads(spec.threads)
    device = pick_device(spec.device)
    data = sources.load(spec.data)
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
            build("network", spec.network).build(shape, len(data.label_names) or None)


def make_objective(spec: TrainSpec, data: Data) -> FlowMatching:
    """The flow-matching objective of a specification."""
    return FlowMatching(
        path=build("path", spec.path),
        output=spec.output,
        error=spec.error,
        coupling=build("coupling", spec.coupling),
        times=build("times", spec.times),
        label_drop=spec.label_drop if data.train_label is not None else 0.0,
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
        "fingerprint": data.fingerprint,
    }


def prepare_autoencoder(
    spec: TrainSpec, data: Data, folder: Path, device: torch.device, say: Say
) -> Standardised:
    """The run's own standardised autoencoder: loaded, or made and saved with its quality."""
    home = folder / "autoencoder"
    if (home / autoencoders.SETTINGS).exists():
        loaded = autoencoders.load(home)
        assert isinstance(loaded, Standardised)
        return loaded.to(device).eval()
    start = time.monotonic()
    bare = _bare_autoencoder(spec, data, home, device, say)
    if spec.network == "exact":
        shape = autoencoders.statistics_shape(bare.latent_shape)
        wrapped = Standardised(bare, torch.zeros(shape), torch.ones(shape), data.train[:4])
    else:
        wrapped = standardise(bare.cpu(), data.train)
    if wrapped.constant:
        say(f"latent coordinates that never vary, left unscaled: {wrapped.constant}")
    wrapped = wrapped.to(device).eval()
    if is_main():
        _keep(wrapped, data, folder, device, time.monotonic() - start, say)
    PartialState().wait_for_everyone()
    return wrapped


def _keep(
    wrapped: Standardised,
    data: Data,
    folder: Path,
    device: torch.device,
    seconds: float,
    say: Say,
) -> None:
    """Save an autoencoder with its quality; the settings file, written last, says it is whole."""
    home = folder / "autoencoder"
    quality = reconstruction_quality(wrapped, data, device)
    write_json(home / "quality.json", quality)
    if data.kind == "image":
        shown = data.heldout[:16]
        images.save_png(
            images.reconstruction_grid(
                shown, reconstruct(wrapped, shown.to(device)).detach().cpu()
            ),
            home / "reconstructions.png",
            {"run": folder.name},
        )
    autoencoders.save(wrapped, home)
    # What its training left is of no more use: the autoencoder itself is kept above.
    shutil.rmtree(home / checkpoint.STATE, ignore_errors=True)
    for name in checkpoint.TOP_LEVEL:
        (home / f"{name}.safetensors").unlink(missing_ok=True)
    folders.add_costs(
        folder,
        autoencoder_s=seconds,
        autoencoder_parameters=sum(p.numel() for p in wrapped.parameters()),
    )
    say(describe_quality(quality))


def is_folder(autoencoder: str) -> bool:
    """Whether a setting names a folder rather than a component."""
    return autoencoder.partition(":")[0] not in FAMILIES["autoencoder"] and (
        Path(autoencoder).is_dir()
    )


def autoencoder_from(folder: Path, data: Data) -> AutoencoderModule:
    """The bare autoencoder that another run, or `monge autoencoder`, has left in a folder.

    Raises:
        UserError: none there, or one for data of another shape.
    """
    inner = folder / "autoencoder"
    loaded = autoencoders.load(inner if inner.is_dir() else folder)
    bare = loaded.autoencoder if isinstance(loaded, Standardised) else loaded
    if tuple(bare.data_shape) != data.shape:
        raise UserError(
            f"the autoencoder in {folder} takes data of shape {tuple(bare.data_shape)}; "
            f"{data.name} has {data.shape}"
        )
    return bare


def _bare_autoencoder(
    spec: TrainSpec, data: Data, home: Path, device: torch.device, say: Say
) -> Any:
    """A trained autoencoder without statistics: from a folder, fitted, or trained now."""
    if is_folder(spec.autoencoder):
        return autoencoder_from(Path(spec.autoencoder), data)
    component = build("autoencoder", spec.autoencoder)
    bare = component.build(data.shape)
    if hasattr(bare, "fit"):
        bare.fit(data.train)
    if component.trainable:
        say(f"training the autoencoder {component!r} for {spec.autoencoder_steps} steps")
        batches = latent_data.DataBatches(data.train, component.draw, spec.batch, spec.seed)
        loop = LoopSpec(
            steps=spec.autoencoder_steps,
            lr=2e-3,
            ema=0.99,
            seed=spec.seed,
            device=spec.device,
            log_every=spec.log_every,
        )
        bare = fit(bare, component.loss, batches, loop, folder=home, quiet=say is quiet).ema
    return bare.eval()


@torch.no_grad()
def reconstruction_quality(
    autoencoder: Standardised, data: Data, device: torch.device
) -> dict[str, Any]:
    """How well held-out data is reconstructed, beside PCA with as many numbers."""

    def rebuilt(model: Any, where: torch.device | str) -> Tensor:
        chunks = data.heldout.split(256)
        return torch.cat([reconstruct(model, part.to(where)).cpu() for part in chunks])

    numbers = size_of(autoencoder.latent_shape)
    decoded = rebuilt(autoencoder, device)
    image = data.kind == "image"
    quality: dict[str, Any] = {
        "kind": repr(autoencoder.autoencoder.spec),
        "latent_shape": list(autoencoder.latent_shape),
        "numbers": numbers,
        "data_numbers": size_of(data.shape),
        "rmse": float((decoded - data.heldout).square().mean().sqrt()),
        "psnr_db": float(psnr(decoded, data.heldout).mean()) if image else None,
        "pca_psnr_db": None,
        "n": len(data.heldout),
    }
    if image and numbers < min(size_of(data.shape), len(data.train)):
        pca = PCASpec(dim=numbers).build(data.shape)
        pca.fit(data.train)
        quality["pca_psnr_db"] = float(psnr(rebuilt(pca, "cpu"), data.heldout).mean())
    return quality


def describe_quality(quality: dict[str, Any]) -> str:
    """One line on the autoencoder."""
    line = f"autoencoder {quality['kind']}: latent {tuple(quality['latent_shape'])}"
    line += f", held-out RMSE {quality['rmse']:.4f}"
    if quality["psnr_db"] is not None:
        line += f", {quality['psnr_db']:.2f} dB"
    if quality["pca_psnr_db"] is not None:
        line += f" (PCA with as many numbers {quality['pca_psnr_db']:.2f} dB)"
        if quality["pca_psnr_db"] > quality["psnr_db"]:
            line += " - WARNING: worse than PCA; train it longer (--autoencoder-steps)"
    return line


def loop_spec(spec: TrainSpec, **changes: Any) -> LoopSpec:
    """The loop's part of a specification."""
    names = {f.name for f in dataclasses.fields(LoopSpec)}
    shared = {k: v for k, v in dataclasses.asdict(spec).items() if k in names}
    shared["micro_batch"] = None if spec.micro_batch == "auto" else spec.micro_batch
    return LoopSpec(**{**shared, **changes})


def _batches(
    spec: TrainSpec, objective: FlowMatching, posterior: Posterior, data: Data
) -> latent_data.LatentBatches:
    cond = {} if data.train_label is None else {"label": data.train_label}
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
    batches = _batches(spec, objective, posterior, data)
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


def _rehearse(spec: TrainSpec, data: Data, objective: FlowMatching, say: Say) -> None:
    """Time the steps of autoencoder and network on untrained ones, keeping nothing."""
    if is_folder(spec.autoencoder):
        bare: Any = autoencoder_from(Path(spec.autoencoder), data)
    else:
        component = build("autoencoder", spec.autoencoder)
        bare = component.build(data.shape)
        if hasattr(bare, "fit"):
            bare.fit(data.train)
        if component.trainable:
            say(f"autoencoder {component!r}:")
            batches = latent_data.DataBatches(data.train, component.draw, spec.batch, spec.seed)
            loop = LoopSpec(steps=spec.autoencoder_steps, device=spec.device, dry_run=True)
            fit(bare, component.loss, batches, loop)
    wrapped = standardise(bare.cpu().eval(), data.train[:512])
    posterior = latent_data.encode(wrapped, data.train[:512])
    few = dataclasses.replace(
        data,
        train=data.train[:512],
        train_label=None if data.train_label is None else data.train_label[:512],
    )
    network = build_network(spec, wrapped.latent_shape, facts_of(data))
    if isinstance(network, ExactNetwork):
        say("network exact: nothing to train")
        return
    say(f"network {spec.network}:")
    fit(
        network,
        objective.loss,
        _batches(spec, objective, posterior, few),
        loop_spec(spec, dry_run=True),
    )
