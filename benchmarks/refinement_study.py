"""What refinement does to samples and reconstructions, beside everything it could be mistaken for.

python benchmarks/refinement_study.py runs/fashion-mnist --work runs/refinement
python benchmarks/refinement_study.py RUN --work FOLDER --save benchmarks/results --plots docs

A copy of RUN is refined by the settings of RUN and --set. Beside it stand the model as it is, at
several temperatures, as likelihood mean and likelihood sample, and the controls:

    trained on            the likelihood alone, for as many seconds as the refinement took
    with output refiner   injectors and output refiner
    output alone          no injectors; the discriminator sees samples and reconstructions
    reconstructions only  output refiner; the discriminator sees no samples
    no adversary          output refiner with weight 0; L1, features and low-pass remain
    patch GAN             the conventional stage, `patchgan_baseline.py`
    unsharp mask          of the likelihood mean, by 1/2 of its difference to a 3 x 3 Gaussian

Everything that is trained sees the same images in the same order. Scores are of --num samples
against as many test images, or images of all splits (--reference all) where the test split is too
small; those hold the training images. What is finished lies in --work and is not done again: the
study can be stopped at any point, and a second process can do --only some rows of it.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from patchgan_baseline import trained_by_patches
from sample_quality_study import Changed, cell
from torch import Tensor

import hvae
from hvae import checkpoint
from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import one_thread
from hvae.bench.report import keep
from hvae.data import Loader, open_source, save_grid
from hvae.data.originals import Chosen, Part, open_part
from hvae.errors import HvaeError, TrainingError
from hvae.files import write_text
from hvae.inference.streams import Reconstructions, Samples
from hvae.metrics import evaluate_likelihood, open_extractor, statistics
from hvae.metrics.collect import Images, collect
from hvae.metrics.measures import features_by, fidelity_to, sharpness_of
from hvae.metrics.reference import Reference
from hvae.metrics.score import Scoring, sharpness_scores
from hvae.models import HVAE
from hvae.ops.philox import derive_seed
from hvae.training import fit
from hvae.training.config import Config
from hvae.training.config_file import load_config
from hvae.training.progress import TrainingProgress
from hvae.training.refine import refine

TEMPERATURES = (0.7, 0.85, 1.0)
RECONSTRUCTED, LIKELIHOOD_OF = 1_000, 2_000  # test images

_OUTPUT = "refine.refiner.output=true"
REFINEMENTS = {
    "refined": (),
    "with output refiner": (_OUTPUT,),
    "output alone": (_OUTPUT, "refine.refiner.injectors=false", "refine.judged=both"),
    "reconstructions only": (_OUTPUT, "refine.judged=reconstructions"),
    "no adversary": (_OUTPUT, "refine.weights.adversarial=0"),
}
"""What of the settings each refinement changes."""


@dataclass(frozen=True)
class Row:
    """A set of samples to be scored.

    name         of the model
    model        made when the row's turn comes
    temperature  of the latents
    output       "mean" or "sample" of the likelihood, "refined", or "unsharp"
    """

    name: str
    model: Callable[[], HVAE]
    temperature: float
    output: str

    @property
    def key(self) -> str:
        """What its file is called."""
        return f"{self.name}, {self.output}, t={self.temperature:g}".replace(" ", "-")


class Study:
    """The models of a study, each made once, in folders of their own."""

    def __init__(self, run: Path, work: Path, settings: Sequence[str]) -> None:
        self.run, self.work, self.settings = run, work, tuple(settings)
        self.config: Config = load_config(run / "config.yaml", self.settings)

    def base(self) -> HVAE:
        """The model as it is."""
        return hvae.load(checkpoint.find_weights(self.run))

    def refined(self, name: str) -> HVAE:
        """A copy of the run after the refinement of this name."""
        folder = self._copy(name)
        began = time.monotonic()
        try:
            if refine(folder, [*self.settings, *REFINEMENTS[name]]).stopped:
                sys.exit("stopped and saved; the same command goes on")
        except TrainingError as error:  # what it saved before is harmless, and is scored
            print(f"{name}: {error}", file=sys.stderr, flush=True)
        finally:
            self._spent(folder, time.monotonic() - began)
        return hvae.load(folder)

    def trained_on(self) -> HVAE:
        """A copy of the run, trained on for as long as it was refined."""
        seconds = json.loads((self.work / "refined" / "seconds.json").read_text())
        rates = sorted(
            row["images_per_second"] for row in logged(self.run / "metrics.jsonl", "train")
        )
        folder = self._copy("trained on", self.config.name)
        images = self.config.train.images + int(seconds * rates[len(rates) // 2])
        made = load_config(
            folder / "config.yaml",
            [f"train.images={images}", f"runs_dir={folder.parent}"],
        )
        fit(made)
        return hvae.load(folder)

    def patch_gan(self) -> HVAE:
        """The model after the conventional stage."""
        file = self.work / "patch-gan" / "model.safetensors"
        model = self.base()
        if not file.exists():
            config = self.config
            loader = Loader(
                open_source(config.data, "train"),
                batch=config.refine.batch,
                seed=derive_seed(config.seed, "refine data"),
                flip=config.data.flip,
            )
            batches = (batch.images for batch in loader.batches(0, config.refine.images))
            with TrainingProgress(config.refine.images, 0) as progress:
                trained, rows = trained_by_patches(
                    model, batches, seed=config.seed, progress=progress
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file.with_name("steps.json"), json.dumps(rows))
            checkpoint.write_tensors(file.parent, {file.stem: trained.state_dict()})
        model.load_state_dict(checkpoint.read_tensors(file))
        return model

    def _copy(self, *names: str) -> Path:
        folder = self.work.joinpath(*(name.replace(" ", "-") for name in names))
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            unfinished = folder.with_name(f".{folder.name}")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(self.run, unfinished, ignore=shutil.ignore_patterns("refine", "*lock"))
            unfinished.rename(folder)
        return folder

    def _spent(self, folder: Path, seconds: float) -> None:
        """Adds up what a refinement took, over stops."""
        file = folder / "seconds.json"
        before = json.loads(file.read_text()) if file.exists() else 0.0
        write_text(file, json.dumps(before + seconds))

    def rows(self) -> Iterator[Row]:
        """What is scored, the model as it is first."""
        for output in ("mean", "sample"):
            for temperature in TEMPERATURES:
                yield Row("unrefined", self.base, temperature, output)
        for temperature in TEMPERATURES:
            yield Row("refined", lambda: self.refined("refined"), temperature, "refined")
        for name in list(REFINEMENTS)[1:]:
            yield Row(name, lambda name=name: self.refined(name), 1.0, "refined")
        yield Row("trained on", self.trained_on, 1.0, "mean")
        yield Row("patch GAN", self.patch_gan, 1.0, "mean")
        yield Row("unsharp mask", self.base, 1.0, "unsharp")


class Scorer:
    """Scores rows against one reference, and keeps what it found in a folder."""

    def __init__(self, study: Study, features: str, num: int, part: Part) -> None:
        self.study, self.num, self.part = study, num, part
        self.extractor = open_extractor(features)
        self.test = open_source(study.config.data, "test")
        self.measures = {"features": features_by(self.extractor), "sharpness": sharpness_of()}
        real = open_part(study.config.data, part)
        self.reference = collect(self.measures, Chosen(real, num, seed=0))
        rows = self.reference["features"]
        self.known = Reference(statistics(rows).factored(), {}, rows)
        names = (self.extractor.frechet_name, self.extractor.kernel_name)
        self.scoring = Scoring(("fid", "kid", "prdc"), *names, resamples=20)

    def __call__(self, row: Row) -> dict[str, Any]:
        """Returns the scores of a row by name."""
        file = self.study.work / "scores" / f"{row.key}-{self.part}-{self.num}.json"
        if file.exists():
            return dict(json.loads(file.read_text()))
        model = row.model()
        print(f"-- {row.key}", file=sys.stderr, flush=True)
        images: Images = Samples(
            model, self.num,
            temperature=row.temperature,
            output="mean" if row.output == "unsharp" else row.output.replace("refined", "mean"),
            refined=row.output == "refined",
        )  # fmt: skip
        if row.output == "unsharp":
            images = Changed(images, unsharp)
        found = collect(self.measures, images)
        scores = self.scoring(found["features"], self.known)
        scores += sharpness_scores(found["sharpness"], self.reference["sharpness"])
        record = {"name": row.name, "output": row.output, "temperature": row.temperature}
        record["scores"] = {score.metric: score.record() for score in scores}
        if row.temperature == 1.0 and row.output != "sample":
            record |= self._beside(row, model)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(record, indent=1))
        return record

    def _beside(self, row: Row, model: HVAE) -> dict[str, float]:
        """What reconstructions and the likelihood are."""
        originals = Chosen(self.test, min(RECONSTRUCTED, len(self.test)), seed=0)
        images: Images = Reconstructions(model, originals, refined=row.output == "refined")
        if row.output == "unsharp":
            images = Changed(images, unsharp)
        fidelity = collect({"fidelity": fidelity_to(originals)}, images)["fidelity"]
        told = evaluate_likelihood(model, self.test, images=LIKELIHOOD_OF)
        return {
            "psnr": fidelity[:, 0].mean().item(),
            "ssim": fidelity[:, 1].mean().item(),
            "bits_per_dim": told.elbo_bits_per_dim,
        }


def unsharp(image: Tensor, _index: int) -> Tensor:
    """Adds half of what a 3 x 3 Gaussian takes away."""
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(len(image), 1, 3, 3)
    x = image.float().cpu()
    blurred = F.conv2d(F.pad(x[None], (1, 1, 1, 1), "replicate"), kernel, groups=len(image))[0]
    return (x + 0.5 * (x - blurred)).round().clamp(0, 255).to(torch.uint8)


def logged(file: Path, kind: str) -> list[dict[str, Any]]:
    """Returns the rows of one kind in a log."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    with one_thread():
        study = Study(args.run, args.work, args.set)
        scorer = Scorer(study, args.features, args.num, args.reference)
        wanted = [row for row in study.rows() if not args.only or row.name in args.only]
        rows = [scorer(row) for row in wanted]
        record = {
            "machine": machine(model_meter("cpu")),
            "run": args.run.name,
            "num": args.num,
            "reference": args.reference,
            "features": scorer.extractor.name,
            "refine": study.config.refine.model_dump(mode="json"),
            "rows": rows,
        }
        text = table(record)
        print(text)
        if args.save:
            length = f"{study.config.refine.images // 1000}k"
            keep(record, text, f"refinement-{args.run.name}-{length}", args.save)
        if args.plots:
            sheets(study, args.plots)
            draw(record, study, args.plots / f"refinement-{args.run.name}.png")


def table(record: dict[str, Any]) -> str:
    """One line per row; the unrefined ones by their distance."""
    where, rows = record["machine"], record["rows"]
    names = [name for name in rows[0]["scores"] if name not in ("density", "coverage")]
    lines = [
        f"{record['run']}, {record['num']:,} samples against as many images "
        f"({record['reference']}), {record['refine']['images']:,} images of refinement, "
        f"{record['features']}; {where['cpu']}, {where['threads']} thread, torch {where['torch']}, "
        f"commit {where['commit']}, {where['date'][:10]}. Intervals: 95 % of 20 resamples. PSNR of "
        f"at most {RECONSTRUCTED:,} reconstructions, bits/dim (ELBO) of at most "
        f"{LIKELIHOOD_OF:,} test images.",
        "",
        f"| model | image | t | {' | '.join(names)} | PSNR | bits/dim |",
        "|" + " --- |" * (len(names) + 5),
    ]
    for row in rows:
        cells = [cell(row["scores"][name]) for name in names]
        cells += [f"{row[name]:.{n}f}" if name in row else "" for name, n in _BESIDE.items()]
        lines.append(
            f"| {row['name']} | {row['output']} | {row['temperature']:g} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


_BESIDE = {"psnr": 2, "bits_per_dim": 4}  # and their digits


def sheets(study: Study, folder: Path) -> None:
    """Writes samples of the same latents, unrefined above refined, and the same of emoji or so."""
    models = [(study.base(), False), (study.refined("refined"), True)]
    parts = [model.sample(32, output="mean", refined=refined, seed=1) for model, refined in models]
    real = Chosen(open_source(study.config.data, "test"), 32, seed=1)
    parts.append(torch.stack(real.take(0, 32)))
    save_grid(torch.cat(parts), folder / f"refined-{study.run.name}.png", columns=16)


def draw(record: dict[str, Any], study: Study, file: Path) -> None:
    """Draws distances over temperature, and the margin and the penalties of the stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    name = next(iter(record["rows"][0]["scores"]))
    for output in ("mean", "sample", "refined"):
        rows = [
            row for row in record["rows"]
            if row["output"] == output and row["name"] in ("unrefined", "refined")
        ]  # fmt: skip
        values = [row["scores"][name]["value"] for row in rows]
        left.plot([row["temperature"] for row in rows], values, "o-", label=output)
    left.set(xlabel="temperature", title=f"{name}, N = {record['num']:,}", ylim=(0, None))
    left.legend()
    stage = logged(study.work / "refined" / "refine" / "metrics.jsonl", "refine")
    seen = [row["images"] for row in stage]
    middle.plot(seen, [row["margin"] for row in stage])
    middle.set(xlabel="real images seen", title="margin E[D(x) - D(x~)]")
    for what in ("penalty_real", "penalty_fake"):
        right.plot(seen, [row[what] for row in stage], label=what)
    right.set(xlabel="real images seen", title="|grad D|^2", yscale="log")
    right.legend()
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--num", type=int, default=5_000)
    parser.add_argument("--reference", choices=("test", "all"), default="test")
    parser.add_argument("--features", default="lite0", metavar="NAME")
    parser.add_argument("--set", nargs="*", default=[], metavar="refine.KEY=VALUE")
    parser.add_argument("--only", nargs="*", default=[], metavar="ROW", help="these models only")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the figures there")
    return parser


if __name__ == "__main__":
    try:
        main()
    except HvaeError as error:
        sys.exit(str(error))
