"""`hvae train --smoke`: what a smoke run did, in words."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from hvae.cli.output import print_result, table

if TYPE_CHECKING:
    from hvae.training.config import Config
    from hvae.training.smoke import SmokeResult


def run_smoke(config: "Config", *, keep: bool, json: bool) -> None:
    """Makes a smoke run and prints what it did."""
    from hvae.training.smoke import smoke

    result = smoke(config, keep=keep)
    record = asdict(result) | {"run": None if result.run is None else str(result.run)}
    print_result(record, _text(result), as_json=json)


def _text(result: "SmokeResult") -> str:
    from hvae.training.progress import memory

    channels, *sides = result.shape
    steps = ", ".join(f"{seconds:.2f} s" for seconds in result.step_seconds)
    return table(
        {
            "smoke run of": result.name,
            "images": f"{' x '.join(map(str, sides))}, {channels} channels, generated, batch 1",
            "model": f"{result.parameters:,} parameters, {result.groups} latent groups",
            "device": result.device,
            "steps": steps,
            "memory of steps": memory(result.step_memory_mib),
            "memory of all": f"{memory(result.memory_mib)}, with evaluation and 2 samples",
            "score": f"{result.bits_per_dim:.3f} bits/dim (ELBO, shapes test, 1 image), untrained",
            "run folder": "removed" if result.run is None else result.run,
            "all in all": f"{result.seconds:.0f} s",
        }
    )
