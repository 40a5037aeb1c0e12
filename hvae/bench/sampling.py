"""Drawing images from the two presets at the training step's layout: kernels against references."""

from collections.abc import Sequence
from contextlib import nullcontext

from hvae import ops
from hvae.bench.measure import Call, Meter, Quantiles, one_thread
from hvae.bench.record import SamplingFigures
from hvae.bench.training_step import VARIANTS, make_model
from hvae.models import HVAE

# The network runs on chunks of 16 samples, so that a single image costs about as much as 16.
BATCHES = (1, 16)


def run(meter: Meter, rounds: int = 9, batches: Sequence[int] = BATCHES) -> list[SamplingFigures]:
    """Measure all variants on each batch, interleaved, on one thread."""
    presets = {variant.preset for variant in VARIANTS.values()}
    figures = []
    with one_thread():
        models = {preset: make_model(preset, meter.device).eval() for preset in presets}
        for batch in batches:
            calls = {
                name: call_of(models[variant.preset], batch, variant.reference)
                for name, variant in VARIANTS.items()
            }
            times = meter.interleaved_ms(calls, rounds)
            for name, values in times.items():
                with_kernels = times[VARIANTS[name].preset]
                ratios = [own / base for own, base in zip(values, with_kernels, strict=True)]
                figures.append(
                    SamplingFigures(name, batch, Quantiles.of(values), Quantiles.of(ratios))
                )
    return figures


def call_of(model: HVAE, batch: int, reference: bool) -> Call:
    """A call without arguments that draws `batch` images."""

    def sample() -> object:
        with ops.reference() if reference else nullcontext():
            return model.sample(batch)

    return sample
