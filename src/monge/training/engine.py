"""One training step: the gradient of the global batch, and what is done with it.

Everything stays on the device: a step whose loss or gradient is not finite is skipped by a flag
that the optimiser's kernel reads, and the numbers for the log are summed in tensors, so the host
need not wait for a step to end.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from monge.errors import UserError
from monge.objectives.base import Batch
from monge.training.caps import Caps
from monge.training.ema import Average
from monge.training.sharding import Piece, own, shard, whole
from monge.training.spec import LoopSpec
from monge.training.step import LossFn, Step, autocast_of
from monge.training.tally import Tally


class Engine:
    """The network, its average and its optimiser, and the step that moves them.

    Any number of processes and micro-batches computes the same gradient: each row weighs
    1 / rows, a process sums over its rows, and the processes are added up. Sharded, a process
    has a part of each tensor that a step changes, and moves that alone; see `sharding`.

    Args:
        network: the bare network, on the accelerator's device unless it is to be sharded.
        rows: size of the global batch.

    Raises:
        UserError: nothing to train, or more processes than rows.
    """

    def __init__(
        self, accelerator: Accelerator, network: nn.Module, loss: LossFn, rows: int, spec: LoopSpec
    ) -> None:
        world, rank = accelerator.num_processes, accelerator.process_index
        if rows < world:
            raise UserError(f"a batch of {rows} rows cannot be shared by {world} processes")
        if not any(p.requires_grad for p in network.parameters()):
            raise UserError(f"{type(network).__name__} has no parameters to train")
        self.accelerator = accelerator
        self.device = accelerator.device
        self.network = network
        self.tally = Tally(self.device)
        self.micro_batch = spec.micro_batch or -(-rows // world)
        self._notes: list[str] = []
        self._spec = spec
        self._world = world
        self._rows = rows
        self._share = slice(rows * rank // world, rows * (rank + 1) // world)
        self._sharded = spec.shard and world > 1
        if world > 1:
            for tensor in _tensors(network).values():
                torch.distributed.broadcast(tensor, 0)
        self.average = Average(network, spec.ema)
        if self._sharded:
            shard(network, self.device)
            self.average.share_out()
        self._caps = Caps(network)
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self._dtype = next(iter(self.parameters.values())).dtype
        self.loss = Step(network, loss, autocast_of(spec, self.device))
        """The loss as a module: eager, or compiled."""
        self._module: nn.Module = self.loss
        # The kernel's gate against overflow (`found_inf`) skips steps without asking the host.
        self._gated = self.device.type in ("cpu", "cuda")
        self._own = {n: own(p) for n, p in self.parameters.items()}
        self._optimizer = torch.optim.AdamW(
            self._own.values(),
            lr=spec.lr,
            betas=spec.betas,
            weight_decay=spec.weight_decay,
            fused=self._gated,
        )
        for p in self._own.values():
            self._optimizer.state[p] = {
                "step": torch.zeros((), device=self.device if self._gated else "cpu"),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    def prepare(self, batch: Batch) -> None:
        """Find out, on the first batch, what works here; nothing that a run computes changes.

        That is a micro-batch that fits into memory, and whether every parameter takes part.
        """
        odd = {name: len(x) for name, x in batch.items() if len(x) != self._rows}
        if odd:
            raise ValueError(f"batches have {self._rows} rows, but {odd} in the first of them")
        self._gradients(self._shared(batch))
        idle = any(p.grad is None for p in self.parameters.values())
        self._forget_gradients()
        if self._world > 1 and not self._sharded:
            agreed = torch.tensor((-self.micro_batch, idle), device=self.device)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX)
            self.micro_batch, idle = -int(agreed[0]), bool(agreed[1])
            accelerator: Any = self.accelerator
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=idle)
            self._module = self.accelerator.prepare_model(self.loss)

    def step(self, n: int, lr: float, batch: Batch) -> None:
        """Step n = 0, 1, ... with the whole global batch, of which this process takes its share."""
        self._seed(n)
        totals = self._gradients(self._shared(batch))
        if self._world > 1:
            torch.distributed.all_reduce(totals)
        self._update(n, lr, totals / self._rows)

    def sizes(self, batch: Batch, seed: int) -> Tensor:
        """The loss of this process's rows of a batch, and the norm of each parameter's gradient.

        Computed without the other processes; what the network itself draws is seeded.
        """
        module, self._module = self._module, self.loss
        try:
            self._seed(seed)
            total = self._gradients(self._shared(batch))[:1]
            gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
            return torch.stack([*total, *(g.norm().to(total) for g in gradients)]).cpu()
        finally:
            self._module = module
            self._forget_gradients()

    def anywhere(self, *flags: bool) -> list[bool]:
        """Each flag, true in every process when it is true in one."""
        if self._world == 1:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.float32, device=self.device)
        torch.distributed.all_reduce(counts)
        return [count > 0 for count in counts.tolist()]

    def agreed(self, value: float) -> float:
        """The main process's value, in every process."""
        if self._world == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def note(self, text: str) -> None:
        """Add to what a person should know of."""
        self._notes.append(text)

    def taken_notes(self) -> list[str]:
        """What a person should know of, since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def pieces(self) -> dict[str, dict[str, Piece]]:
        """What this process has of every tensor that a step changes, by file and name."""
        model = {name: Piece(own(t), t) for name, t in _tensors(self.network).items()}
        return {
            "model": model,
            "ema": {**model, **self.average.pieces()},
            "optimizer": {
                f"{key}/{name}": Piece(value, self.parameters[name] if value.ndim else value)
                for name, p in self._own.items()
                for key, value in self._optimizer.state[p].items()
            },
        }

    def whole(self) -> dict[str, dict[str, Tensor]]:
        """The whole of those tensors, which one process saves and all take part in putting
        together; sharded ones on the CPU, others as they are.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for group, pieces in self.pieces().items():
            found[group] = {}
            for name, piece in pieces.items():
                tensor = piece.whole()
                if self.accelerator.is_main_process:
                    found[group][name] = tensor.cpu() if self._sharded else tensor
        return found

    def averaged(self) -> nn.Module:
        """The averaged network, which all take part in putting together, on the device."""
        found = self.average.look()
        if self._sharded and self.accelerator.is_main_process:
            found = copy.deepcopy(found).to(self.device)
        return found

    def trained(self) -> nn.Module:
        """The bare network, in evaluation mode; a sharded one is put together on the CPU."""
        if not self._sharded:
            return self.network.eval()
        found = copy.deepcopy(self.average.look())
        with torch.no_grad():
            for into, p in zip(found.parameters(), self.network.parameters(), strict=True):
                into.copy_(whole(own(p), p))
        return found

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy saved tensors into place.

        Raises:
            UserError: they belong to another network.
        """
        for group, ours in self.pieces().items():
            theirs = groups.get(group, {})
            names = ours.keys() | theirs.keys()
            odd = [n for n in sorted(names) if _shape(ours.get(n)) != _shape(theirs.get(n))]
            if odd:
                raise UserError(
                    f"the checkpoint does not fit this network: {group} tensor {odd[0]!r} has "
                    f"shape {_shape(theirs.get(odd[0]))} there and {_shape(ours.get(odd[0]))} "
                    "here; go on with the configuration it was trained with"
                )
            for name, piece in ours.items():
                piece.put(theirs[name])

    def _seed(self, n: int) -> None:
        """Seed what the network itself draws (dropout) from (seed, n), so that it resumes."""
        # Generators use 32 bits of a seed; the factor spreads runs over them.
        seed = (self._spec.seed * 2654435761 + n) % 2**32
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _shared(self, batch: Batch) -> Batch:
        """This process's rows, on the device and in the network's dtype."""
        moved = {}
        for name, tensor in batch.items():
            rows = tensor[self._share]
            if self.device.type == "cuda" and not rows.is_cuda:
                rows = rows.pin_memory()
            dtype = self._dtype if rows.is_floating_point() else rows.dtype
            moved[name] = rows.to(self.device, dtype, non_blocking=True)
        return moved

    def _gradients(self, batch: Batch) -> Tensor:
        """Accumulate the gradient of this process's rows; the sums of their loss and parts."""
        while True:
            try:
                return self._accumulate(batch)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                reason = _first_line(error)
            # Here, not in the handler, because the error holds the activations.
            exchanging = self._module is not self.loss or self._sharded
            if self._spec.micro_batch is not None or exchanging or self.micro_batch == 1:
                raise UserError(
                    f"out of memory with micro-batches of {self.micro_batch} rows ({reason}): "
                    "choose a smaller micro-batch or network, or a lower precision"
                )
            self._forget_gradients()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.micro_batch = -(-self.micro_batch // 2)
            self._notes.append(f"out of memory: going on with micro-batches of {self.micro_batch}")

    def _accumulate(self, batch: Batch) -> Tensor:
        # Distributed gradients are averaged over processes, where they are to be added up.
        weight = self._world / self._rows
        totals: Tensor | None = None
        for chunk, last in self._chunks(batch):
            with nullcontext() if last else self.accelerator.no_sync(self._module):
                total, parts = self._module(chunk)
                self.accelerator.backward(total * weight)
            sums = torch.stack((total.detach(), *parts.values())).to(self.tally.dtype)
            totals = sums if totals is None else totals + sums
            self.tally.parts = tuple(parts)
        assert totals is not None
        return totals

    def _chunks(self, batch: Batch) -> Iterator[tuple[Batch, bool]]:
        """Micro-batches, and whether each is the last."""
        rows = len(next(iter(batch.values())))
        most = math.ceil(self._rows / self._world)
        if not self._sharded or self.micro_batch >= most:
            yield from _chunks(batch, self.micro_batch)
            return
        # Sharded, each is an exchange, so all processes need as many of them, of a row at least.
        count = math.ceil(most / self.micro_batch)
        if count > self._rows // self._world:
            raise UserError(
                f"sharded, a batch of {self._rows} rows cannot be cut into micro-batches of "
                f"{self.micro_batch} in each of {self._world} processes: choose a batch that is a "
                "multiple of the number of processes"
            )
        for k in range(count):
            piece = slice(rows * k // count, rows * (k + 1) // count)
            yield {name: x[piece] for name, x in batch.items()}, k + 1 == count

    def _forget_gradients(self) -> None:
        for tensor in (*self.parameters.values(), *self._own.values()):
            tensor.grad = None

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """The norm of the gradient."""
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._sharded:
            squared = norm.square()
            torch.distributed.all_reduce(squared)
            norm = squared.sqrt()
        return norm

    def _update(self, n: int, lr: float, means: Tensor) -> None:
        if self._sharded:
            for name, p in self.parameters.items():
                self._own[name].grad = None if p.grad is None else own(p.grad)
        gradients = [p.grad for p in self._own.values() if p.grad is not None]
        norm = self._norm(gradients)
        bad = ~(means[0].isfinite() & norm.isfinite())
        if self._spec.clip is not None:
            scale = (self._spec.clip / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)  # type: ignore[attr-defined]
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        if self._gated:
            optimizer: Any = self._optimizer
            optimizer.found_inf = bad.float()
            optimizer.step()
        elif not bad:
            self._optimizer.step()
        self._forget_gradients()
        self._caps.hold()
        self.average.update(n)
        self.tally.add(means, norm, bad)


def _chunks(batch: Batch, size: int) -> Iterator[tuple[Batch, bool]]:
    """Slices of at most `size` rows, and whether each is the last."""
    rows = len(next(iter(batch.values())))
    for start in range(0, rows, size):
        whole = size >= rows
        chunk = batch if whole else {k: x[start : start + size] for k, x in batch.items()}
        yield chunk, start + size >= rows


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers; one that has two names under the first."""
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def _shape(tensor: Tensor | Piece | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
