"""`TrainSpec`: the specification of a run, the same in YAML, on the command line and in Python.

Components stay text ("power:kappa=0.75") until they are built, so reading a specification needs no
torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from monge.components import read_value
from monge.data.reading import Reading
from monge.errors import UserError, nearest, reason

FORMAT_VERSION = 2

NEW_IN_2 = frozenset({*(f.name for f in fields(Reading)), "flip", "init_from", "check_cache"})
"""Keys that files of version 1 lack; those runs used the defaults."""

NEW_TRAINED = frozenset(
    {
        *("objective", "pairs", "teacher", "teacher_guidance", "image_mode", "marginals"),
        *("conditional", "dates"),
    }
)
"""Later keys that change the trained model; at their defaults they are not in a run's digest."""

LATER = frozenset({"shard", "changed_data"}) | NEW_TRAINED
"""Later keys; files without them are read with the defaults."""

MAY_CHANGE = frozenset(
    {
        "steps",
        "minutes",
        "micro_batch",
        "precision",
        "compile",
        "shard",
        "device",
        "threads",
        "save_every",
        "sample_every",
        "log_every",
        "tensorboard",
        "check_cache",
        "changed_data",
        "solver",
        "grid",
        "final",
        "guidance",
    }
)
"""Fields that a continued run may change: they do not change the finished training."""


@dataclass(frozen=True)
class TrainSpec(Reading):
    """All settings of a training run. The defaults suit a small data set on a CPU."""

    data: str = "digits"
    """Source: a folder of images or of parquet files, a .csv, .tsv, .parquet, .npz or .npy file,
    hf:ORG/NAME, digits, or a known law, target:NAME:...: gaussian, mixture, box, hypercube,
    product, latent, moons, checkerboard, spirals, rings, 8gaussians"""

    # What is trained
    autoencoder: str = "auto"
    """identity, pca:dim=.., conv:down=..,channels=.., a pre-trained one (diffusers:FOLDER_OR_NAME,
    taesd:FOLDER, mlp_vae:FILE), a folder made by `monge autoencoder`, or auto: conv for images,
    identity for tables."""
    autoencoder_steps: int | None = None
    """Training steps of a new autoencoder; none: until they no longer help, at most a third of the
    minutes."""
    network: str = "auto"
    """transformer:size=XS|S|B|L|XL, mlp:width=..,depth=.., lipschitz:cap=.. (a transformer with a
    certified Lipschitz constant), piecewise:mlp:width=..+depth=..,pieces=.. (one network for each
    piece of time), exact (known targets only), or auto: transformer where latents are grids
    (C, H, W), mlp where they are vectors."""
    path: str = "linear"
    """linear, trigonometric, ou, linear_beta, or power:kappa=.."""
    output: Literal["velocity", "data", "noise", "score"] = "velocity"
    """Quantity that the network outputs."""
    error: Literal["velocity", "data", "noise"] | None = None
    """Quantity of the squared error; none: the one that suits path and output."""
    objective: str = "flow_matching"
    """flow_matching, or a flow map that needs few steps, learned with its flow: self-lagrangian,
    self-eulerian, self-semigroup, meanflow, improved-meanflow, shortcut, flow-map-matching,
    consistency-training, continuous-consistency-training; or a chain of blocks, jko or
    local-flow-matching (see monge chain). Of a map with :stop=none|convex|full,
    derivative=auto|jvp|difference, diagonal=.., weight=none|learned|adaptive, clip=..,
    anneal=.."""
    pairs: str = "auto"
    """Law of the times (s, t) between which a map jumps: triangle, triangle:both=true (backwards
    too), logit_spans:mean=..,std=.., source:part=.., to_data, dyadic:levels=..; auto: the
    objective's own."""
    teacher: str | None = None
    """The run that a map is distilled from: set by `monge distil`."""
    teacher_guidance: str = "1"
    """Guidance of the teacher: a scale, or a range such as 1..3 that the map takes as an input."""
    coupling: str = "independent"
    """independent, or ot:plan=.. (minibatch optimal transport)."""
    times: str = "uniform"
    """Law of the training times: uniform, or logit_normal:mean=..,std=.."""
    label_drop: float = 0.1
    """Probability that a label is dropped in training, which guidance needs."""
    conditional: Literal["no", "any"] = "no"
    """any: learn the columns of a table given any others, which `monge sample RUN --condition` and
    `monge impute` then need."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Learn the mirror images too; auto: for fewer than 500 images in colour."""
    init_from: str | None = None
    """Start from the weights of this run; its autoencoder and network are taken where those are
    auto, whatever the labels and the size of the images."""

    # How it is trained
    steps: int | None = None
    """Training steps; none: given by minutes."""
    minutes: float | None = None
    """Training time, including that of a new autoencoder; converted to a number of steps when
    training starts. With steps too: whichever is reached first."""
    batch: int = 128
    """Examples per step, over all processes."""
    micro_batch: int | Literal["auto"] = "auto"
    """Examples per forward pass; auto: as many as fit."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    clip: float | None = 1.0
    """Largest gradient norm; none: unlimited."""
    ema: float = 0.999
    """Decay of the weights' moving average, warmed up; samples use the average."""
    seed: int = 0
    """Seed of everything random."""

    # Where and how fast
    precision: Literal["auto", "float32", "bf16", "float64"] = "auto"
    """auto: bf16 where the device has it, else float32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the network's loss: on, off, or auto: on where eager steps would take more than half
    an hour and compiled ones are faster; as before in a run that goes on. Flow maps and chains are
    never compiled."""
    shard: bool = False
    """Distribute weights, average and optimiser state over the processes (FSDP), for a network
    that does not fit on one; nothing else changes."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    threads: int | None = None
    """CPU threads; none: torch's choice."""
    save_every: int = 500
    """Steps between checkpoints."""
    sample_every: int | None = None
    """Steps between sample grids; none: at most eight in all."""
    log_every: int = 20
    """Steps between log lines."""
    tensorboard: bool = False
    """Also log to TensorBoard."""
    check_cache: bool = False
    """First compare the cache, and the files from which it was made, with their hashes."""
    changed_data: bool = False
    """Continue with other examples than those of the start of the run; columns, classes and shapes
    must be the same. The run records the change."""

    # Default settings of sampling
    solver: str = "heun"
    """euler, midpoint, heun, rk3, rk4, or dopri5:rtol=..,atol=.."""
    grid: str = "auto"
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=..; stop=.. stops early; auto: 20
    equal steps, of a flow map 4."""
    final: Literal["auto", "none", "divide", "posterior_mean"] = "auto"
    """After the last step: nothing, divide by alpha, or E[x1 | x_T]; auto: nothing at t = 1, the
    posterior mean before."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is none."""

    def identity(self) -> dict[str, Any]:
        """The fields that determine the trained model."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in MAY_CHANGE}

    @property
    def guidance_range(self) -> tuple[float, float]:
        """Least and greatest guidance scale of the teacher.

        Raises:
            UserError: the text is neither a scale nor a range.
        """
        ends = self.teacher_guidance.split("..")
        try:
            lo, hi = float(ends[0]), float(ends[-1])
        except ValueError:
            lo, hi = math.nan, math.nan
        if len(ends) > 2 or not (math.isfinite(lo) and lo <= hi < math.inf):
            raise UserError(
                "teacher guidance is a scale or a range as 1..3, the lesser first, not "
                f"{self.teacher_guidance!r}"
            )
        return lo, hi

    def digest(self) -> str:
        """Eight hex digits of a hash of the fields that determine the trained model."""
        plain = dataclasses.asdict(TrainSpec())
        said = {k: v for k, v in self.identity().items() if k not in NEW_TRAINED or v != plain[k]}
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def to_yaml(spec: TrainSpec) -> str:
    """The specification as YAML, with the format version on top."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(spec)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def from_yaml(path: Path, base: TrainSpec | None = None, complete: bool = False) -> TrainSpec:
    """Read a specification; keys that are absent keep the values of `base` (the defaults).

    With `complete`, as for the file of a run folder, every key is required.

    Every scalar is read by the type of its field, as on the command line: ``1e-4`` is a number,
    and ``no`` is a truth value only if the field expects one.

    Raises:
        UserError: an unreadable file, an unknown key (with file, line and nearest key), a value
            of the wrong type, or a newer format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {reason(error)}; save it as UTF-8") from None
    entries = _entries(text, path)
    found = entries.pop("format_version", (str(FORMAT_VERSION), 0))[0]
    version = read_value(found, int, f"{path}: format_version")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}; this monge reads up to {FORMAT_VERSION}: "
            "upgrade monge"
        )
    hints = get_type_hints(TrainSpec)
    known = [f.name for f in fields(TrainSpec)]
    values = {}
    for key, (value, line) in entries.items():
        if key not in known:
            raise UserError(f"{path}, line {line}: unknown key {key!r}: {nearest(key, known)}")
        values[key] = read_value(value, hints[key], f"{path}, line {line}: {key}")
    lacking = NEW_IN_2 | LATER if version < 2 else LATER
    missing = [name for name in known if name not in values and name not in lacking]
    if complete and missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing[:3])}, ...")
    return dataclasses.replace(base or TrainSpec(), **values)


def _entries(text: str, path: Path) -> dict[str, tuple[str, int]]:
    """The text and line of each scalar of a flat YAML mapping, not converted."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    except (RecursionError, ValueError, TypeError) as error:
        told = "nested too deep" if isinstance(error, RecursionError) else reason(error)
        raise UserError(f"{path} is not YAML that monge writes: {told}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected lines of the form 'key: value'")
    entries = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{path}, line {line}: a key should be a name, not a list or map")
        if not isinstance(value, yaml.ScalarNode):
            raise UserError(f"{path}, line {line}: {key.value} takes one value, not a list or map")
        if key.value in entries:
            raise UserError(f"{path}, line {line}: {key.value} is given twice")
        null = value.tag == "tag:yaml.org,2002:null"
        entries[key.value] = ("none" if null else value.value, line)
    return entries


def plain_source(text: str) -> str:
    """A source in normalised spelling, without slashes at its end and dots in its path.

    >>> plain_source("./photos/"), plain_source("hf:org/name"), plain_source("target:box")
    ('photos', 'hf:org/name', 'target:box')
    """
    return text if text.startswith(("hf:", "target:")) or not text else os.path.normpath(text)


def difference(old: TrainSpec, new: TrainSpec) -> dict[str, tuple[Any, Any]]:
    """The fields in which two specifications differ: name -> (old, new)."""
    a, b = dataclasses.asdict(old), dataclasses.asdict(new)
    if plain_source(old.data) == plain_source(new.data):
        b["data"] = a["data"]
    return {k: (a[k], b[k]) for k in a if a[k] != b[k]}
