"""What the processes of test_distributed.py run: `torchrun ... worker.py SCENARIO FOLDER CONFIG`.

Each process leaves what it saw in `<scenario>-<rank>.json` of the folder; the test judges it.
"""

import dataclasses
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from hvae.checkpoint import read_tensors
from hvae.errors import HvaeError, UserError
from hvae.testing import poisoned_memory
from hvae.training import Config, fit, load_config
from hvae.training.build import build_model
from hvae.training.distributed import World, joined
from hvae.training.sharding import birthplace, gathered, whole
from hvae.training.step import Stepper, StepReport


def stepper_of(config: Config, world: World, sharding: str = "ddp", accumulate: int = 1) -> Stepper:
    update = {"sharding": sharding, "accumulate": accumulate}
    train = config.train.model_copy(update=update)
    model = build_model(config, birthplace(world, train.sharding))
    return Stepper(model, train, config.seed, world)


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)


def own(world: World, x: Tensor) -> Tensor:
    places = world.block(len(x))
    return x[places.start : places.stop]


def raised(function: Callable[[], Any]) -> list[Any]:
    try:
        return ["nothing", function()]
    except HvaeError as error:
        return [type(error).__name__, str(error)]


def gradients(stepper: Stepper, x: Tensor) -> dict[str, Tensor]:
    """Whole gradients of one batch, of which `x` is all; the stepper takes its part."""
    stepper.images = len(x)
    stepper._backward((own(stepper.world, x),), len(x))
    found = {n: whole(p.grad).clone() for n, p in stepper.model.named_parameters()}
    stepper.optimizer.zero_grad()
    return found


def buckets_averaged(stepper: Stepper) -> list[int]:
    """A list that grows by the index of each bucket of gradients that processes average."""
    seen: list[int] = []

    def hook(_: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        seen.append(bucket.index())
        return allreduce_hook(torch.distributed.group.WORLD, bucket)

    stepper.forward.register_comm_hook(None, hook)
    return seen


def words(world: World) -> dict[str, Any]:
    """Everything processes say to each other, in one value each."""
    values = own(world, torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, 9.0]])).requires_grad_()
    mean = world.mean(values, 3)
    (gradient,) = torch.autograd.grad((mean * torch.tensor([1.0, 10.0])).sum(), values)

    def wrong_on_second() -> None:
        with world.agreed():
            if not world.first:
                raise UserError("no such photo")

    def broken(rank: int) -> Any:
        raise UserError(f"asked in {rank}")

    def batches() -> Any:
        yield 1
        if not world.first:
            raise UserError("a bad photo")
        yield 2

    return {
        "mean": mean.tolist(),
        "gradient": gradient.tolist(),
        "same": world.same(torch.tensor([float(world.rank), 7.0])).tolist(),
        "any": [world.any(flag) for flag in (False, world.rank == 1, True)],
        "gather": world.gather("é" * (1 + 3 * world.rank) if world.rank else None),
        "by_first": world.by_first(lambda: {"rank": world.rank}),
        "by_first_error": raised(lambda: world.by_first(lambda: broken(world.rank))),
        "agreed_error": raised(wrong_on_second),
        "in_step_error": raised(lambda: list(world.in_step(batches()))),
        "end": list(world.in_step(iter([1, 2]))),
    }


def steps(world: World, folder: Path, config: Config) -> dict[str, Any]:
    """Gradients, tensors, and a process that sees a NaN."""
    saved = {}
    averaged = {}
    for name, sharding, parts in (("ddp", "ddp", 1), ("fsdp", "fsdp", 1), ("parts", "ddp", 3)):
        tuned = stepper_of(config, world, sharding, parts)
        if sharding == "ddp":
            averaged[name] = buckets_averaged(tuned)
        for count in (1, 4, 5):
            found = gradients(tuned, images(count))
            saved |= {f"{name}.{count}.{parameter}": g for parameter, g in found.items()}

    cut, again = stepper_of(config, world, "fsdp"), stepper_of(config, world)
    for _ in range(3):
        cut.step(own(world, images(4)), total=4)
    files = gathered(cut.tensors(), world)
    files = {name: files[name] if world.first else {} for name in files}
    if world.first:
        for stem, tensors in files.items():
            save_file({n: t.contiguous() for n, t in tensors.items()}, folder / f"{stem}.st")
    saved |= {f"fsdp.{stem}.{n}": t for stem, named in files.items() for n, t in named.items()}
    if world.first:
        save_file({name: t.contiguous() for name, t in saved.items()}, folder / "steps.safetensors")
    world.any(False)  # the files are there
    read = {stem: read_tensors(folder / f"{stem}.st") for stem in cut.tensors()}
    again.load(read, cut.state_dict())
    other = stepper_of(config, world, "fsdp")
    other.load(read, cut.state_dict())
    back = gathered(other.tensors(), world)
    round_trips = [
        torch.equal(read[stem][name], named[name])
        for tensors in (back, again.tensors() if world.first else {})
        for stem, named in tensors.items()
        for name in named
    ]

    result: dict[str, Any] = {"words": words(world), "round_trips": round_trips}
    result["averaged"] = {name: len(buckets) for name, buckets in averaged.items()}
    for sharding in ("ddp", "fsdp"):
        bad = stepper_of(config, world, sharding)
        before = digest(bad)

        def spoil(_: Any, __: Any, output: Any) -> Any:
            return output * float("nan")

        if not world.first:
            bad.model.decoder.blocks[1].posterior.c4.register_forward_hook(spoil)
            bad.model.encoder.blocks[0].register_forward_hook(spoil)
        report = bad.step(own(world, images(4)), total=4)
        place = bad.locate(own(world, images(4)), total=4)
        result[f"nan_{sharding}"] = {
            "skipped": report.skipped,
            "guard": bad.guard.state_dict(),
            "unchanged": digest(bad) == before,
            "place": dataclasses.asdict(place),
        }
    return result


def digest(stepper: Stepper) -> str:
    """A hash of all that this process holds."""
    hashed = hashlib.sha256()
    for named in (stepper.model.state_dict(), stepper.ema.tensors):
        for tensor in named.values():
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            hashed.update(local.detach().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def signalled(number: int, rank: int, step: int, once: Path | None = None) -> None:
    """Sends a signal to one process after one of its steps, in this process's life or ever."""
    take = Stepper.step

    def step_and_signal(self: Stepper, *batch: Tensor, **given: int) -> StepReport:
        report = take(self, *batch, **given)
        if self.world.rank == rank and self.steps == step and not (once and once.exists()):
            if once is not None:
                once.touch()
            os.kill(os.getpid(), number)
        return report

    Stepper.step = step_and_signal  # type: ignore[method-assign]


def run(config: Config, name: str, world: World, **changes: Any) -> list[Any]:
    train = config.train.model_copy(update=changes)
    result = fit(config.model_copy(update={"name": name, "train": train}), world=world)
    return [result.images, result.stopped, result.bits_per_dim]


def halves(world: World, folder: Path, config: Config) -> dict[str, Any]:
    """Twenty steps at once, and ten that a signal to the second process ends."""
    whole_run = run(config, "whole", world)
    signalled(signal.SIGTERM, rank=1, step=10)
    return {"whole": whole_run, "half": run(config, "half", world)}


def rests(world: World, folder: Path, config: Config) -> dict[str, Any]:
    """The other ten steps, also cut in parts; and a run of which one process is killed."""
    rest = run(config, "half", world)
    elsewhere = config.model_copy(update={"runs_dir": str(folder / "elsewhere")})
    cut = run(elsewhere, "half", world, sharding="fsdp")
    signalled(signal.SIGKILL, rank=1, step=13, once=folder / "killed")
    return {"rest": rest, "cut": cut, "lost": run(config, "lost", world)}


def main() -> None:
    scenario, folder, config = sys.argv[1], Path(sys.argv[2]), load_config(sys.argv[3])
    with joined() as world, poisoned_memory():
        result = globals()[scenario](world, folder, config)
        (folder / f"{scenario}-{world.rank}.json").write_text(json.dumps(result))
        world.leave_together()


if __name__ == "__main__":
    main()
