"""Both sides of `hvae fid`, measured, scored, and told."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvae.cli.candidates import SAMPLES, Candidate, Made, candidates
from hvae.cli.output import table
from hvae.cli.sides import FileSide, RunSide, SetSide, Side, differences
from hvae.errors import UserError

if TYPE_CHECKING:
    from hvae.cli.measuring import Measuring, Rows
    from hvae.metrics.reference import Reference
    from hvae.metrics.score import Score, Scoring

UNITS = {"psnr": "dB"}


class Comparison:
    """Scores side A against side B.

    Args:
        fake: side A.
        real: side B.
        made: how runs make images.
        num_real: samples of B, where it is a run too. None: the usual number.
    """

    def __init__(self, fake: Side, real: Side, made: Made, num_real: int | None = None) -> None:
        self.fake, self.real, self.made = fake, real, made
        self.num_real = num_real or SAMPLES

    def results(self, measuring: "Measuring", scoring: "Scoring") -> dict[str, Any]:
        """Returns the record: a row for every score under "results", and what they depend on.

        Every process takes part in measuring; the first one scores, and tells the others.
        """
        from hvae.metrics.score import cautions

        # A file that cannot be read is told before the other side is measured.
        found = measuring.read(self.fake.file) if isinstance(self.fake, FileSide) else None
        reference, real_rows = self._reference(measuring)
        rows: list[dict[str, Any]] = []
        if found is not None:
            n_fake = found.count
            known = found.statistics
            scores = measuring.scored(lambda: scoring(known, reference))
            rows += [{"n_fake": n_fake, **score} for score in scores]
        else:
            assert not isinstance(self.fake, FileSide)
            for candidate in candidates(self.fake, self.real, self.made):
                n_fake = len(candidate.images)
                made = measuring.rows(candidate.images, candidate.what, candidate.originals)
                scores = measuring.scored(
                    partial(_scores, candidate, made, reference, real_rows, scoring)
                )
                at = {} if candidate.temperature is None else {"temperature": candidate.temperature}
                rows += [{**at, "n_fake": n_fake, **score} for score in scores]
        notes = differences(self.fake, self.real)
        notes += cautions(n_fake, reference.count, measuring.extractor.dim, scoring.metrics)
        return {
            "metric": rows[0]["metric"],
            "value": rows[0]["value"],
            "results": rows,
            "n_real": reference.count,
            "a": self.fake.record(),
            "real": {**self.real.record(), **reference.provenance},
            "reference_is_train": self._is_train(),
            **self.made.record(),
            **measuring.record(),
            "warnings": notes,
        }

    def _reference(self, measuring: "Measuring") -> tuple["Reference", "Rows"]:
        side, found = self.real, self.real.record()
        if isinstance(side, FileSide):
            return measuring.read(side.file), {}
        if isinstance(side, SetSide):
            return measuring.reference(side.images, found, side.images.rows)
        (drawn,) = candidates(side, self.fake, Made(self.num_real, seed=self.made.seed))
        found["sha256"] = found["checkpoint_sha256"]
        return measuring.reference(drawn.images, found, range(self.num_real))

    def _is_train(self) -> bool | None:
        """Whether a run is compared with images it was trained on; None where nothing tells."""
        if not (isinstance(self.fake, RunSide) and isinstance(self.real, SetSide)):
            return None
        from hvae.cli.run import saved_data, valid_data

        weights = self.fake.weights
        try:
            trained = valid_data(saved_data(weights), str(weights.parent)).source
        except UserError:
            return None
        same = Path(trained).expanduser().resolve() == Path(self.real.word).expanduser().resolve()
        return same and self.real.images.source.split != "test"


def _scores(
    candidate: Candidate, made: "Rows", reference: "Reference", real: "Rows", scoring: "Scoring"
) -> "Iterator[Score]":
    from hvae.metrics.measures import FIDELITY
    from hvae.metrics.score import Score, sharpness_scores

    yield from scoring(made["features"], reference)
    if "sharpness" in made:
        yield from sharpness_scores(made["sharpness"], real["sharpness"])
    if "fidelity" in made:
        for name, column in zip(FIDELITY, made["fidelity"].T, strict=True):
            yield Score(name, column.mean().item())


def in_words(record: dict[str, Any]) -> str:
    """Returns a record as lines for people: each score with what it may be compared by."""
    rows = [
        f"{row['metric']} {_value(row)} ({', '.join(_conditions(row, record))})"
        for row in record["results"]
    ]
    real, seconds = record["real"], record["seconds"]
    source = real.get("statistics") or f"{real['data']} {real['split']}"
    facts = {
        "real": f"{source}, {record['n_real'] or 'unknown number of'} images",
        "features": f"{record['features']}, sha256 {record['features_sha256'][:16]}",
        "time": ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        + f"; {record['features_per_second']:.0f} features/s",
    }
    return "\n".join([*rows, "", table(facts)])


def _value(row: dict[str, Any]) -> str:
    text = f"{row['value']:.6g}" + (f" {unit}" if (unit := UNITS.get(row["metric"])) else "")
    if "stderr" in row:
        text += f" ± {row['stderr']:.2g}"
    if "sd" in row:
        text += f" (sd {row['sd']:.2g} over subsets)"
    if "low" in row:
        text += f" [{row['low']:.6g}, {row['high']:.6g}]"
    return text


def _conditions(row: dict[str, Any], record: dict[str, Any]) -> Iterator[str]:
    if "temperature" in row:
        yield f"t={row['temperature']:g}"
    if record["reconstructions"]:
        yield "reconstructions"
    if row["n_fake"] is not None:
        yield f"N={row['n_fake']}"
    yield record["protocol"]
    yield record["features"]
