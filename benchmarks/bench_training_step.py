"""Time and memory of a training step, preset against preset.

python benchmarks/bench_training_step.py [--save]
pytest benchmarks/bench_training_step.py            the same steps under pytest-benchmark
"""

import argparse
from pathlib import Path

import pytest

from hvae.bench import report, training_step
from hvae.bench.measure import one_thread

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of a training step")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", action="store_true", help=f"write JSON and table to {RESULTS}")
    args = parser.parse_args()
    figures = training_step.run(args.rounds)
    table = training_step.markdown(figures)
    with one_thread():
        print(report.headline(report.machine()), table, sep="\n\n")
        if args.save:
            report.save("training_step", figures, table, RESULTS)


@pytest.mark.parametrize("variant", training_step.VARIANTS)
def test_step(benchmark, variant):
    with one_thread():
        model = training_step.make_model(training_step.VARIANTS[variant][0])
        benchmark(training_step.step_of(model, variant))


if __name__ == "__main__":
    main()
