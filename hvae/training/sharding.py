"""How a model lies over the processes of a run, and how its tensors come together in files.

    ddp    every process holds the whole model, its moments and its average; torch averages the
           gradients while the backward runs
    fsdp   each tensor is cut between the processes; torch gathers a block's weights when the block
           runs, and scatters its gradients (FSDP2)

Files hold whole tensors either way, so that any number of processes reads what any other wrote, and
so does `hvae.load`. They are gathered one at a time into the memory of the first process's host.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hvae.models import HVAE
from hvae.training.config import Sharding
from hvae.training.distributed import World

Files = dict[str, dict[str, Tensor]]


def birthplace(world: World, sharding: Sharding) -> torch.device:
    """Returns where a model is built: on its device, or the host if that may not hold all of it."""
    return torch.device("cpu") if _cuts(world, sharding) else world.device


def distribute(model: HVAE, world: World, sharding: Sharding) -> Any:
    """Returns what to call for a forward whose gradients are averaged over all processes.

    With "fsdp" the model's parameters are replaced by cut ones: build optimiser and average
    afterwards.
    """
    if world.size == 1:
        return model
    if _cuts(world, sharding):
        _cut(model, world)
        return model
    # A 1x1 convolution's gradient may name its strides in another way; they are the same memory.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(
        model,
        device_ids=None if world.device.type == "cpu" else [world.device],
        gradient_as_bucket_view=True,
        # Encoder features that no group reads leave their weights without a gradient. It also
        # keeps the buckets as they are at first: rebuilt after the first step, they would add
        # three or more numbers in another order than the first step after a resume.
        find_unused_parameters=True,
    )


def held_back(forward: Any) -> Callable[[], AbstractContextManager[None]]:
    """Returns what makes a context in which gradients add up and are not averaged yet.

    Those of a cut model are averaged each time: to add them up they would have to be kept whole.

    Args:
        forward: what `distribute` returned.
    """
    return forward.no_sync if isinstance(forward, DistributedDataParallel) else nullcontext


def is_cut(tensor: Tensor) -> bool:
    """Returns whether a tensor is a DTensor, without the import of those, which takes a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Returns all of a tensor that may be cut; every process must ask for it."""
    return cast(Any, tensor).full_tensor() if is_cut(tensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """Returns what this process holds of a tensor that may be cut; shares its memory."""
    return cast(Any, tensor).to_local() if is_cut(tensor) else tensor


@torch.no_grad()
def fill(target: Tensor, tensor: Tensor) -> None:
    """Copies a whole tensor into one that may be cut."""
    if is_cut(target):
        from torch.distributed.tensor import distribute_tensor

        cut = cast(Any, target)
        # Without a source rank nothing is sent: each process has the tensor and takes its part.
        there = tensor.to(cut.device)
        tensor = distribute_tensor(there, cut.device_mesh, cut.placements, src_data_rank=None)
    part(target).copy_(part(tensor))


def gathered(files: Mapping[str, Mapping[str, Tensor]], world: World) -> Files:
    """Returns whole tensors, of which processes other than the first keep none.

    Cut ones come to the host one at a time: a device never holds more than one of them.
    """
    result: Files = {file: {} for file in files}
    for file, named in files.items():
        for name, tensor in named.items():
            full = whole(tensor)
            if world.first:
                result[file][name] = full.cpu() if is_cut(tensor) else full
    return result


def _cuts(world: World, sharding: Sharding) -> bool:
    return sharding == "fsdp" and world.size > 1


def _cut(model: HVAE, world: World) -> None:
    """Cuts every block, then what is left, each in one piece to gather."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Nothing writes in place into what a block returns, some of which are views.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mesh = init_device_mesh(world.device.type, (world.size,))
    # The root too goes back to its parts: an evaluation under the average would leave the average
    # in place for the next step.
    for module in (*model.encoder.blocks, *model.decoder.blocks, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for method in ("sample", "encode", "decode", "decode_image", "log_weights"):
        register_fsdp_forward_method(model, method)
