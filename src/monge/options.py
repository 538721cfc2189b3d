"""The keyword arguments of `monge.train`, `distil`, `evaluate` and `verify`, typed for editors.

The arguments of `train` and `distil` are documented in `TrainSpec`; a test keeps names and types
equal. A component may be a text or a value.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from monge.components import Component


class ReadingOptions(TypedDict, total=False):
    """Settings of `monge.read`: the fields of `Reading`."""

    image_size: int | None
    image_fit: Literal["crop", "pad"]
    image_mode: Literal["auto", "RGB", "RGBA"]
    image_column: str | None
    label_column: str | None
    columns: str | None
    drop: str | None
    condition_columns: str | None
    categorical: str | None
    missing: Literal["refuse", "drop", "mean", "model"]
    dates: Literal["auto", "day-first", "month-first"]
    marginals: Literal["auto", "quantile", "power", "none"]
    subset: str | None
    split: str | None
    limit: int | None
    allow_bad: bool


class TrainOptions(ReadingOptions, total=False):
    """Settings of `monge.train`: the fields of `TrainSpec` without `data`."""

    autoencoder: str | Component
    autoencoder_steps: int | None
    network: str | Component
    path: str | Component
    output: Literal["velocity", "data", "noise", "score"]
    error: Literal["velocity", "data", "noise"] | None
    objective: str | Component
    pairs: str | Component
    teacher: str | None
    teacher_guidance: str
    coupling: str | Component
    times: str | Component
    label_drop: float
    conditional: Literal["no", "any"]
    flip: Literal["auto", "yes", "no"]
    init_from: str | None
    steps: int | None
    minutes: float | None
    batch: int
    micro_batch: int | Literal["auto"]
    lr: float
    schedule: Literal["cosine", "constant"]
    warmup: int
    weight_decay: float
    clip: float | None
    ema: float
    seed: int
    precision: Literal["auto", "float32", "bf16", "float64"]
    compile: Literal["auto", "on", "off"]
    shard: bool
    device: str
    threads: int | None
    save_every: int
    sample_every: int | None
    log_every: int
    tensorboard: bool
    check_cache: bool
    changed_data: bool
    solver: str | Component
    grid: str | Component
    final: Literal["auto", "none", "divide", "posterior_mean"]
    guidance: float


class DistilOptions(TypedDict, total=False):
    """Settings of `monge.distil`; a missing setting or None means the teacher's.

    The fields of `TrainSpec` except those that the teacher or `distil` decides. Guidance is that of
    the teacher: "2", or a range, "1..3".
    """

    image_size: int | None
    image_fit: Literal["crop", "pad"] | None
    image_mode: Literal["auto", "RGB", "RGBA"] | None
    image_column: str | None
    label_column: str | None
    columns: str | None
    drop: str | None
    condition_columns: str | None
    categorical: str | None
    missing: Literal["refuse", "drop", "mean", "model"] | None
    dates: Literal["auto", "day-first", "month-first"] | None
    marginals: Literal["auto", "quantile", "power", "none"] | None
    subset: str | None
    split: str | None
    limit: int | None
    allow_bad: bool | None
    autoencoder_steps: int | None
    network: str | Component
    path: str | Component | None
    output: Literal["velocity", "data", "noise", "score"] | None
    error: Literal["velocity", "data", "noise"] | None
    pairs: str | Component | None
    coupling: str | Component | None
    times: str | Component | None
    label_drop: float | None
    flip: Literal["auto", "yes", "no"] | None
    steps: int | None
    minutes: float | None
    batch: int | None
    micro_batch: int | Literal["auto"] | None
    lr: float | None
    schedule: Literal["cosine", "constant"] | None
    warmup: int | None
    weight_decay: float | None
    clip: float | None
    ema: float | None
    seed: int | None
    precision: Literal["auto", "float32", "bf16", "float64"] | None
    compile: Literal["auto", "on", "off"] | None
    shard: bool | None
    device: str | None
    threads: int | None
    save_every: int | None
    sample_every: int | None
    log_every: int | None
    tensorboard: bool | None
    check_cache: bool | None
    changed_data: bool | None
    solver: str | Component | None
    grid: str | Component | None
    final: Literal["auto", "none", "divide", "posterior_mean"] | None
    guidance: str | float | None


class SamplingOptions(TypedDict, total=False):
    """Settings of sampling; a missing setting or None means the run's own."""

    steps: int | None
    solver: str | Component | None
    grid: str | Component | None
    guidance: float | None
    final: Literal["auto", "none", "divide", "posterior_mean"] | None
