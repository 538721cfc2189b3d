"""A network whose weights, gradients, average and optimiser state the processes share out (FSDP).

Every process has a part of each tensor, a slice of its first axis; the whole of a block's weights
is together only while the block is computed. So a network that does not fit on a device four
times over, as weights, gradient and two moments, may fit on several. Checkpoints hold whole
tensors, so that a run goes on with any number of processes, sharded or not.

References:
    | FSDP (Zhao et al., 2023) -- https://arxiv.org/abs/2304.11277
    | fully_shard -- https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from monge.system import processes


def shard(network: nn.Module, device: torch.device) -> None:
    """Share out a network, in place, each repeated block on its own.

    Args:
        network: whole and alike in all processes; its parts go to the device.
    """
    mesh = init_device_mesh(device.type, (processes.world(),))
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def own(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory; all of it if it is not shared out."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor


def part(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, shared out like another."""
    if not isinstance(like, DTensor):
        return whole
    whole = whole.to(like.device, like.dtype)
    # Without a source, every process cuts its part out of a whole of its own.
    return distribute_tensor(
        whole, like.device_mesh, like.placements, src_data_rank=None
    ).to_local()


def whole(own: Tensor, like: Tensor) -> Tensor:
    """The whole of which each process has a part, shared out like another; all take part."""
    if not isinstance(like, DTensor):
        return own
    shape, stride = like.shape, like.stride()
    return DTensor.from_local(
        own, like.device_mesh, like.placements, shape=shape, stride=stride
    ).full_tensor()


@dataclass(frozen=True)
class Piece:
    """What this process has of a tensor that a step changes.

    Attributes:
        own: its part, the tensor itself and no copy.
        like: a tensor that is shared out in the same way, of the whole's shape.
    """

    own: Tensor
    like: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return tuple(self.like.shape)

    @property
    def nbytes(self) -> int:
        """Of the whole."""
        return self.like.numel() * self.own.element_size()

    def whole(self) -> Tensor:
        """The whole; all processes take part."""
        return whole(self.own, self.like)

    @torch.no_grad()
    def put(self, value: Tensor) -> None:
        """Take the values of this process's part from a whole."""
        self.own.copy_(part(value, self.like))
