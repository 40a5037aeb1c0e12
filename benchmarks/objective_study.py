"""What the objective does to small models: equal steps on `fashion-mini`, seed by seed, one table.

python benchmarks/objective_study.py --minutes 2 --seeds 0 1 2 --save benchmarks/results
python benchmarks/objective_study.py --variants base ladder --settings plain free-bits
python benchmarks/objective_study.py --variants base wide --define wide model.width=40

Every run trains for the same number of images: --images, or what the base model takes --minutes
for on one thread of this machine, measured once and kept with the runs. The same command again
goes on where it was stopped; runs that are finished are not trained again. Scores are the ELBO of
the averaged weights (beta 1, no free bits) on the whole test split.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hvae import checkpoint
from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import one_thread
from hvae.bench.report import keep
from hvae.data import open_source
from hvae.errors import HvaeError, TrainingError, UserError
from hvae.files import write_text
from hvae.models import HVAE
from hvae.training import Config, fit, load_config
from hvae.training.build import build_model, complete
from hvae.training.diagnostics import COLLAPSED
from hvae.training.step import Stepper

MOST_PARAMETERS = 300_000

# The objective. "warm-up" is also the run of beta 1, and "free-bits" the default; "kept" free bits
# cool so slowly that they hardly do.
SETTINGS: dict[str, tuple[str, ...]] = {
    "plain": ("kl_schedule=constant", "free_bits=0"),
    "warm-up": ("free_bits=0",),
    "cyclical": ("kl_schedule=cyclical", "free_bits=0"),
    "free-bits": (),
    "kept": ("free_bits_images=1_000_000_000",),
    "kl-share": ("free_bits=0", "kl_share=true"),
    "beta-0.5": ("free_bits=0", "beta=0.5"),
    "beta-4": ("free_bits=0", "beta=4.0"),
}
# The architecture, on top of `fashion_mini`. The ladder has 54 narrow groups of one channel, most
# of them at the finest level, of which a plain objective uses fewer than half.
BASE = ("model.width=48", "model.widths={7: 72, 1: 72}", "data.batch=16")
VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "ladder": (
        "model.encoder=14x1,14d2,7x2,7d7,1x1",
        "model.decoder=1x2,7m1,7x4,14m7,14x46",
        "model.width=12",
        "model.widths={7: 16, 1: 16}",
        "model.z_channels=1",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One run: its score, or why it has none."""

    variant: str
    setting: str
    seed: int
    images: int
    parameters: int
    bits_per_dim: float | None
    kl_per_group: tuple[float, ...]
    active_units: tuple[int, ...]
    rollbacks: int
    seconds: float
    failure: str | None

    @property
    def active_groups(self) -> int:
        return sum(kl >= COLLAPSED for kl in self.kl_per_group)


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    variants = {**VARIANTS, **{name: tuple(values) for name, *values in args.define}}
    try:
        with one_thread():
            _check(args.settings, SETTINGS)
            _check(args.variants, variants)
            images = args.images or _images_of(args.minutes, args.runs)
            outcomes = []
            for variant in args.variants:
                for setting in args.settings:
                    for seed in args.seeds:
                        config = _config(variants[variant], setting, seed, images, args.runs)
                        name = f"{variant}-{setting}-seed{seed}-{images}"
                        config = config.model_copy(update={"name": name})
                        outcomes.append(_outcome(config, variant, setting, seed))
            where = machine(model_meter("cpu"))
    except UserError as error:
        sys.exit(f"no table: {error}")
    text = table(outcomes, where)
    print(text)
    if args.save:
        record = {"machine": where, "runs": [asdict(outcome) for outcome in outcomes]}
        keep(record, text, "objective_study", args.save)


def table(outcomes: Sequence[Outcome], where: dict[str, Any]) -> str:
    """One line per variant and setting; the spread is the standard deviation over seeds."""
    lines = [
        f"fashion-mini, {outcomes[0].images:,} images a run; {where['cpu']}, {where['threads']} "
        f"thread, torch {where['torch']}, commit {where['commit']}, {where['date'][:10]}",
        "",
        "| variant | parameters | setting | seeds | bits/dim | KL nats | active groups "
        "| roll-backs | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, setting in dict.fromkeys((o.variant, o.setting) for o in outcomes):
        runs = [o for o in outcomes if (o.variant, o.setting) == (variant, setting)]
        scored = [o for o in runs if o.bits_per_dim is not None]
        cells = [variant, f"{runs[0].parameters:,}", setting, _seeds(runs, scored)]
        if scored:
            groups = len(scored[0].kl_per_group)
            cells += [
                _mean_and_spread([o.bits_per_dim for o in scored if o.bits_per_dim is not None]),
                f"{statistics.mean(sum(o.kl_per_group) for o in scored):.1f}",
                f"{statistics.mean(o.active_groups for o in scored):.1f} of {groups}",
            ]
        else:
            cells += ["diverged", "", ""]
        cells.append(str(sum(o.rollbacks for o in runs)))
        cells.append(f"{statistics.mean(o.seconds for o in runs):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seeds(runs: Sequence[Outcome], scored: Sequence[Outcome]) -> str:
    failed = len(runs) - len(scored)
    return f"{len(runs)}" + (f" ({failed} diverged)" if failed else "")


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def _config(variant: Sequence[str], setting: str, seed: int, images: int, runs: Path) -> Config:
    objective = [f"train.objective.{text}" for text in SETTINGS[setting]]
    # That of `fashion_mini`, unless the run is too short for it.
    lengths = [f"train.images={images}", f"train.warmup_images={min(1200, images // 10)}"]
    return load_config(
        "fashion_mini",
        [
            *BASE, *variant, *objective, *lengths,
            f"runs_dir={runs}", f"seed={seed}", "train.keep_last=1", "train.precision=fp32",
            f"train.log_every={max(16, images // 20)}", f"train.sample_every={images}",
            f"train.checkpoint_every={max(16, images // 4)}", f"train.eval_every={images}",
        ],
    )  # fmt: skip


def _outcome(config: Config, variant: str, setting: str, seed: int) -> Outcome:
    print(f"-- {config.name}", file=sys.stderr, flush=True)
    parameters = _parameters(config)
    failure, bits, rollbacks = None, None, 0
    try:
        result = fit(config, device="cpu")
        if result.stopped:
            sys.exit("stopped; the same command goes on")
        bits, rollbacks = result.bits_per_dim, result.rollbacks
    except TrainingError as error:
        failure = str(error)
    lines = (Path(config.runs_dir) / config.name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    final = [row for row in rows if row["kind"] == "eval"][-1:] if failure is None else []
    return Outcome(
        variant=variant,
        setting=setting,
        seed=seed,
        images=config.train.images,
        parameters=parameters,
        bits_per_dim=bits,
        kl_per_group=tuple(final[0]["kl_per_group"]) if final else (),
        active_units=tuple(final[0]["active_units"]) if final else (),
        rollbacks=rollbacks or sum(row["kind"] == "alarm" for row in rows),
        seconds=_training_seconds(rows),
        failure=failure,
    )


def _parameters(config: Config) -> int:
    """The count of a run's parameters, after a check that it is a small model."""
    model = _model(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST_PARAMETERS:
        raise UserError(f"{config.name}: {count:,} parameters, wanted at most {MOST_PARAMETERS:,}")
    return count


def _model(config: Config) -> HVAE:
    return build_model(complete(config, open_source(config.data, "train")), torch.device("cpu"))


def _training_seconds(rows: Sequence[dict[str, Any]]) -> float:
    """What the steps took, without evaluations; the end of a run after its last row is left out."""
    seconds, before = 0.0, 0
    for row in rows:
        if row["kind"] == "train":
            seconds += (row["images"] - before) / row["images_per_second"]
            before = row["images"]
    return seconds


def _images_of(minutes: float, runs: Path) -> int:
    """How many images the base model trains on in so many minutes; measured once per folder."""
    file = runs / "images.json"
    known = checkpoint.read_json(file) if file.exists() else {}
    if str(minutes) not in known:
        config = _config((), "free-bits", 0, 100_000, runs)
        stepper = Stepper(_model(config), config.train, 0)
        x = torch.randint(256, (config.data.batch, *stepper.model.shape), dtype=torch.uint8)
        for _ in range(5):
            stepper.step(x)
        began, steps = time.monotonic(), 0
        while time.monotonic() - began < 10:
            stepper.step(x)
            steps += 1
        rate = steps * len(x) / (time.monotonic() - began)
        known[str(minutes)] = max(1, round(minutes * 60 * rate / 100)) * 100
        runs.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(known) + "\n")
    return int(known[str(minutes)])


def _check(names: Sequence[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"no {name!r}; there are {', '.join(known)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--variants", nargs="+", default=["base"], metavar="NAME")
    parser.add_argument(
        "--define", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
        help="a variant of the architecture, on top of the base",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--images", type=int, help="length of every run")
    length.add_argument("--minutes", type=float, default=2.0, help="the same in time (default 2)")
    parser.add_argument("--runs", type=Path, default=Path("runs/objective-study"))
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    return parser


if __name__ == "__main__":
    try:
        main()
    except HvaeError as error:
        sys.exit(str(error))
