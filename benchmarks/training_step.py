"""A training step of our transformer beside those of diffusers and azula.

Only the network differs: each is trained by our own engine (forward, backward, clipping, fused
AdamW, average of the weights) with the flow-matching loss on the same batch, at the same width,
depth, heads, tokens and patch, conditioned on a time and a label. diffusers' DiT embeds the time
and the label once more in every block; azula's block has one norm and one gate where DiT's and
ours have two. Parameters and FLOPs stand in the notes. Run with
`python -m benchmarks.training_step`; about four minutes on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Row, Rows, installed, interleave, parser, ratio, show, skipped, timed
from monge.networks.layers import TIME_SCALE, Conditioning
from monge.networks.transformer import TransformerSpec
from monge.objectives.base import Batch
from monge.objectives.flow_matching import FlowMatching
from monge.tensors import stream
from monge.training.engine import Engine
from monge.training.spec import LoopSpec
from monge.types import Cond, State, Time

CLASSES = 10
PATCH = 2


@dataclass(frozen=True)
class Size:
    """What all contestants have in common."""

    width: int
    depth: int
    heads: int
    side: int
    rows: int
    steps: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return 4, self.side, self.side

    def __str__(self) -> str:
        tokens = (self.side // PATCH) ** 2
        return f"width {self.width}, depth {self.depth}, {tokens} tokens, {self.rows} rows"


SIZES = (
    Size(width=128, depth=4, heads=4, side=8, rows=128, steps=4),
    Size(width=384, depth=12, heads=6, side=16, rows=16, steps=1),
)


class Diffusers(nn.Module):
    """`DiTTransformer2DModel`, called as our networks are."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        self.dit = DiTTransformer2DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.width // size.heads,
            in_channels=4,
            num_layers=size.depth,
            sample_size=size.side,
            patch_size=PATCH,
            num_embeds_ada_norm=CLASSES,
        )

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        assert isinstance(t, Tensor) and cond is not None
        return self.dit(x, TIME_SCALE * t, cond["label"], return_dict=False)[0]


class Azula(nn.Module):
    """azula's `ViT` (its `DiT` on patches), modulated by our embedding of time and label."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        from azula.nn.vit import ViT  # pyright: ignore[reportMissingImports]

        self.conditioning = Conditioning(size.width, CLASSES, 0, spec_of(size))
        self.vit = ViT(
            in_channels=4,
            out_channels=4,
            mod_features=size.width,
            hid_channels=size.width,
            hid_blocks=size.depth,
            attention_heads=size.heads,
            patch_size=PATCH,
        )

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        return self.vit(x, self.conditioning(x, t, cond, None))


def spec_of(size: Size) -> TransformerSpec:
    """The settings of our transformer."""
    return TransformerSpec(width=size.width, depth=size.depth, heads=size.heads, patch=PATCH)


def ours(size: Size) -> nn.Module:
    return spec_of(size).build(size.shape, CLASSES)


def batch_of(size: Size, objective: FlowMatching) -> Batch:
    rng = stream(0, "data")
    x1 = torch.randn(size.rows, *size.shape, generator=rng)
    label = torch.randint(0, CLASSES, (size.rows,), generator=rng)
    return objective.draw({"x1": x1, "label": label}, rng)


def stepper(network: nn.Module, size: Size):
    """A function that takes one training step."""
    objective = FlowMatching()
    batch = batch_of(size, objective)
    spec = LoopSpec(steps=1)
    engine = Engine(Accelerator(cpu=True), network.train(), objective.loss, size.rows, spec)
    engine.prepare(batch)

    def step() -> None:
        engine.step(0, 1e-3, batch)

    step()
    return step


def facts(network: nn.Module, size: Size) -> str:
    """Parameters, and floating-point operations of a forward and backward pass of one row."""
    objective = FlowMatching()
    batch = batch_of(size, objective)
    with FlopCounterMode(display=False) as counter:
        objective.loss(network, batch).per_example.mean().backward()
    network.zero_grad()
    parameters = sum(p.numel() for p in network.parameters())
    flops = counter.get_total_flops() / size.rows
    return f"{parameters / 1e6:.2f} M parameters, {flops / 1e6:.0f} MFLOP per row"


def run(rounds: int) -> Rows:
    rows: Rows = {}
    for size in SIZES:
        networks = {"monge": ours(size)}
        for name, contestant in (("diffusers", Diffusers), ("azula", Azula)):
            if installed(name) and (name != "azula" or installed("einops")):
                networks[name] = contestant(size)
        notes = {name: facts(network, size) for name, network in networks.items()}
        steppers = {name: stepper(network, size) for name, network in networks.items()}
        seconds = interleave({k: timed(f, size.steps) for k, f in steppers.items()}, rounds)
        for name, aim in (("diffusers", ">= 1.05"), ("azula", ">= 0.97")):
            row: Row = skipped(name)
            if name in seconds:
                note = f"{name} {notes[name]}; monge {notes['monge']}"
                row = ratio(seconds[name], seconds["monge"], aim, note)
            rows[f"{name} / monge, {size}"] = row
    return rows


if __name__ == "__main__":
    show("training step beside other transformers", run(parser(__doc__).parse_args().rounds))
