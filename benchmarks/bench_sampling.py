"""Images per second of the two presets, with and without the kernels.

python benchmarks/bench_sampling.py [--save benchmarks/results]
pytest benchmarks/bench_sampling.py                 the same calls under pytest-benchmark
"""

import pytest

from hvae.bench import sampling, training_step
from hvae.bench.measure import one_thread
from hvae.bench.script import main


@pytest.mark.parametrize("batch", sampling.BATCHES)
@pytest.mark.parametrize("variant", training_step.VARIANTS)
def test_sampling(benchmark, variant, batch):
    preset, reference, _ = training_step.VARIANTS[variant]
    with one_thread():
        benchmark(sampling.call_of(training_step.make_model(preset).eval(), batch, reference))


if __name__ == "__main__":
    main("sampling")
