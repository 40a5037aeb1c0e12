"""What sample metrics say of images whose quality is known, and how their bias falls with N.

python benchmarks/sample_quality_study.py runs/fashion-mini
python benchmarks/sample_quality_study.py RUN OTHER --save benchmarks/results --plots docs/images

The reference is the test split of --real, half of it (--num). Against it stand as many real images
of the training split, real images that were blurred or made noisy, a Gaussian fitted to the pixels
of the training images, and samples of trained runs at several temperatures: a metric worth its name
orders them. Conditional runs are told the classes of the test images.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import hvae
from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import one_thread
from hvae.bench.report import keep
from hvae.data import DataConfig, open_source
from hvae.data.originals import Chosen
from hvae.errors import HvaeError
from hvae.inference.streams import Samples
from hvae.metrics import (
    frechet_distance,
    frechet_infinity,
    kernel_distance,
    open_extractor,
    statistics,
)
from hvae.metrics.collect import Images, collect
from hvae.metrics.measures import features_by, sharpness_of
from hvae.metrics.reference import Reference
from hvae.metrics.score import Scoring, sharpness_scores
from hvae.training.sample_quality import told_by

TEMPERATURES = (0.7, 0.85, 1.0)
SIZES = (250, 500, 1000, 2000, 3500, 5000, 7000, 10_000)


@dataclass
class Changed:
    """Images of a set with something done to each."""

    images: Images
    change: Callable[[Tensor, int], Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, start: int, stop: int) -> list[Tensor]:
        taken = self.images.take(start, stop)
        return [self.change(image, start + i) for i, image in enumerate(taken)]

    def file(self, index: int) -> str:
        return self.images.file(index)


def noisy(sigma: float) -> Callable[[Tensor, int], Tensor]:
    """Adds normal noise of so many grey levels."""

    def change(image: Tensor, index: int) -> Tensor:
        draw = torch.Generator().manual_seed(index)
        noise = torch.randn(image.shape, generator=draw)
        return (image + sigma * noise).round().clamp(0, 255).to(torch.uint8)

    return change


def blurred(image: Tensor, _index: int) -> Tensor:
    """Halves the resolution and brings it back."""
    small = F.avg_pool2d(image[None].float(), 2)
    large = F.interpolate(small, image.shape[-2:], mode="bilinear")
    return large[0].round().clamp(0, 255).to(torch.uint8)


class PixelGaussian:
    """Draws of the normal distribution with the mean and covariance of a set's pixels."""

    def __init__(self, images: Chosen, count: int) -> None:
        x = torch.stack(images.take(0, len(images))).double()
        self.shape, flat = x.shape[1:], x.flatten(1)
        self.mean, self.count = flat.mean(0), count
        self.factor = torch.linalg.eigh(flat.T.cov())
        self.draw = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return self.count

    def take(self, start: int, stop: int) -> list[Tensor]:
        values, vectors = self.factor
        noise = torch.randn(stop - start, len(values), generator=self.draw, dtype=torch.float64)
        flat = self.mean + noise * values.clamp(min=0).sqrt() @ vectors.T
        return list(flat.round().clamp(0, 255).to(torch.uint8).view(-1, *self.shape))

    def file(self, index: int) -> str:
        return f"draw {index}"


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    with one_thread():
        extractor = open_extractor(args.features)
        train, test = (open_source(DataConfig(source=args.real), s) for s in ("train", "test"))
        real = Chosen(test, args.num, seed=0)
        measures = {"features": features_by(extractor), "sharpness": sharpness_of}
        reference_rows = collect(measures, real)
        features = reference_rows["features"]
        reference = Reference(statistics(features).factored(), {}, features)
        scoring = Scoring(
            ("fid", "kid", "prdc"), extractor.frechet_name, extractor.kernel_name, resamples=5
        )
        rows = []
        for name, images in _candidates(args, Chosen(train, args.num, seed=1), real):
            print(f"-- {name}", file=sys.stderr, flush=True)
            seconds = {"images": 0.0, "features": 0.0}
            found = collect(measures, images, seconds=seconds)
            began = time.monotonic()
            scores = scoring(found["features"], reference)
            scores += sharpness_scores(found["sharpness"], reference_rows["sharpness"])
            seconds["scores"] = time.monotonic() - began
            scored = {score.metric: score.record() for score in scores}
            rows.append({"images": name, "scores": scored, "seconds": seconds})
        bias = _bias(extractor, Chosen(train, 10_000, seed=2), Chosen(test, None))
        where = machine(model_meter("cpu"))
    record = {
        "machine": where,
        "real": args.real,
        "num": args.num,
        "features": extractor.name,
        "protocol": extractor.protocol,
        "rows": rows,
        "bias": bias,
    }
    text = table(record)
    print(text)
    if args.save:
        keep(record, text, "sample_quality", args.save)
    if args.plots:
        draw(record, args.plots / "sample-metrics.png")


def _candidates(
    args: argparse.Namespace, others: Chosen, real: Chosen
) -> Iterator[tuple[str, Images]]:
    yield "real, of the training split", others
    yield "real, blurred by 2", Changed(others, blurred)
    for sigma in (8, 32):
        yield f"real, noise of {sigma} levels", Changed(others, noisy(sigma))
    yield "Gaussian of the pixels", PixelGaussian(others, args.num)
    for run in args.runs:
        model = hvae.load(run)
        told = told_by(model, real)
        for temperature in TEMPERATURES:
            for output in ("sample", "mean") if temperature == 1 else ("sample",):
                name = f"{Path(run).name}, t={temperature:g}"
                name += ", likelihood mean" if output == "mean" else ""
                yield (
                    name,
                    Samples(model, args.num, temperature=temperature, output=output, told=told),
                )


def _bias(extractor: Any, train: Chosen, test: Chosen) -> list[dict[str, float]]:
    """Real against real at several N: all that is seen is bias."""
    print("-- bias", file=sys.stderr, flush=True)
    a, b = (
        collect({"features": features_by(extractor)}, images)["features"]
        for images in (train, test)
    )
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(a)))
    known = statistics(b).factored()
    rows = []
    for count in SIZES:
        part = a[order[:count]]
        row = {"n": count, "frechet": frechet_distance(statistics(part), known)}
        kernel = kernel_distance(part, b, subset_size=min(count, 1000))
        row |= {"kernel": kernel.mean, "kernel_sd": kernel.sd}
        if count >= 1000:
            limit = frechet_infinity(part, known)
            row |= {"infinity": limit.value, "infinity_stderr": limit.stderr}
        rows.append(row)
    return rows


def table(record: dict[str, Any]) -> str:
    """Two tables: images of known quality, and the bias of real against real."""
    where, rows = record["machine"], record["rows"]
    names = [name for name in rows[0]["scores"] if name not in ("density", "laplacian_ratio")]
    lines = [
        f"{record['real']}, {record['num']:,} against {record['num']:,} test images, "
        f"{record['features']} ({record['protocol']}); {where['cpu']}, {where['threads']} thread, "
        f"torch {where['torch']}, commit {where['commit']}, {where['date'][:10]}",
        "",
        f"| images | {' | '.join(names)} | images/s | share of time: making, features, scores |",
        "|" + " --- |" * (len(names) + 3),
    ]
    for row in rows:
        spent = row["seconds"]
        total = sum(spent.values())
        shares = ", ".join(f"{value / total:.0%}" for value in spent.values())
        cells = [cell(row["scores"][name]) for name in names]
        rate = record["num"] / total
        lines.append(f"| {row['images']} | {' | '.join(cells)} | {rate:.0f} | {shares} |")
    lines += [
        "",
        f"Real against real: N training images against {SIZES[-1]:,} test images.",
        "",
        "| N | Frechet distance | extrapolated to endless N | kernel distance, sd over subsets |",
        "| --- | --- | --- | --- |",
    ]
    for row in record["bias"]:
        limit = f"{row['infinity']:.2f} ± {row['infinity_stderr']:.2f}" if "infinity" in row else ""
        lines.append(
            f"| {row['n']:,} | {row['frechet']:.2f} | {limit} | "
            f"{row['kernel']:.3f}, {row['kernel_sd']:.3f} |"
        )
    return "\n".join(lines)


def cell(score: dict[str, Any]) -> str:
    text = f"{score['value']:.3g}" if abs(score["value"]) < 10 else f"{score['value']:.1f}"
    if "low" in score:
        text += f" [{score['low']:.1f}, {score['high']:.1f}]"
    return text


def draw(record: dict[str, Any], file: Path) -> None:
    """Draws the bias over N, and the distances of images of known quality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    bias = record["bias"]
    left.plot([r["n"] for r in bias], [r["frechet"] for r in bias], "o-", label="Frechet distance")
    extrapolated = [row for row in bias if "infinity" in row]
    left.errorbar(
        [row["n"] for row in extrapolated],
        [row["infinity"] for row in extrapolated],
        yerr=[2 * row["infinity_stderr"] for row in extrapolated],
        fmt="s--", capsize=3, label="extrapolated to endless N, ± 2 se",
    )  # fmt: skip
    left.axhline(0, color="#b0b0b0", linewidth=0.8)
    left.set(xscale="log", xlabel="N", title="real against real: all of it is bias")
    left.legend()
    rows = record["rows"][::-1]
    name = next(iter(rows[0]["scores"]))
    right.barh([row["images"] for row in rows], [row["scores"][name]["value"] for row in rows])
    right.set(xlabel=f"{name}, N = {record['num']:,}", title="images of known quality")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--real", default="fashion-mnist", metavar="DATA")
    parser.add_argument("--num", type=int, default=5_000)
    parser.add_argument("--features", default="lite0", metavar="NAME")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the figure there")
    return parser


if __name__ == "__main__":
    try:
        main()
    except HvaeError as error:
        sys.exit(str(error))
