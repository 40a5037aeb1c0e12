"""Time and memory of a training step, preset against preset.

python benchmarks/bench_training_step.py [--compiled] [--save benchmarks/results]
pytest benchmarks/bench_training_step.py            the same steps under pytest-benchmark
"""

import pytest

from hvae.bench import training_step
from hvae.bench.measure import one_thread
from hvae.bench.script import main


@pytest.mark.parametrize("variant", training_step.VARIANTS)
def test_step(benchmark, variant):
    with one_thread():
        model = training_step.make_model(training_step.VARIANTS[variant].preset)
        benchmark(training_step.step_of(model, variant))


if __name__ == "__main__":
    main("training_step")
