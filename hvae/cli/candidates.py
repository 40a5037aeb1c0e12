"""What `hvae fid` scores of side A: samples at each temperature, reconstructions, or images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvae.cli.sides import FileSide, RunSide, SetSide, Side
from hvae.errors import UserError

if TYPE_CHECKING:
    from hvae.metrics.collect import Images

SAMPLES = 50_000  # of a run, as tables in the literature have it


@dataclass(frozen=True)
class Made:
    """How a run makes images.

    Attributes:
        count: samples.
        temperatures: each gives a set of samples.
        output: "sample" draws from the likelihood, "mean" takes its mean.
        cond: what a conditional model is told, as `hvae sample` takes it.
        guidance: weight of the condition.
        seed: of all draws.
        reconstructions: of the images of the other side, instead of samples.
    """

    count: int
    temperatures: tuple[float, ...] = (1.0,)
    output: str = "sample"
    cond: str | None = None
    guidance: float = 1.0
    seed: int = 0
    reconstructions: bool = False

    def record(self) -> dict[str, Any]:
        """What a record says of it."""
        made = {"seed": self.seed, "reconstructions": self.reconstructions}
        if self.reconstructions:
            return {**made, "posterior": "sample"}
        return {**made, "output": self.output, "cond": self.cond, "guidance": self.guidance}


@dataclass(frozen=True)
class Candidate:
    """Images that are scored.

    Attributes:
        images: what they are.
        what: for the progress.
        temperature: of samples; None for other images.
        originals: what reconstructions stand for.
    """

    images: "Images"
    what: str
    temperature: float | None = None
    originals: "Images | None" = None


def check_sides(fake: Side, real: Side, metrics: tuple[str, ...], made: Made) -> None:
    """Raises UserError where the sides cannot give what is asked."""
    if made.reconstructions and not (isinstance(fake, RunSide) and isinstance(real, SetSide)):
        raise UserError("--reconstructions wants a run as A and images as B")
    if not isinstance(fake, RunSide):
        _refuse_settings(made, "A is no run")
    elif made.reconstructions:
        _refuse_settings(made, "reconstructions are asked for")
    if any(isinstance(side, FileSide) for side in (fake, real)) and set(metrics) != {"fid"}:
        raise UserError(
            f"a file of statistics allows --metrics fid alone, asked for is {', '.join(metrics)}; "
            "give the images"
        )


def check_use(
    fake: Side, real: Side, made: Made, *, size: int | None, num_images: int | None
) -> None:
    """Raises UserError where an option would change nothing."""
    if size is not None and not any(isinstance(side, SetSide) for side in (fake, real)):
        raise UserError("--size fits the images of a set, and neither side is one")
    if made.reconstructions and num_images is not None:
        raise UserError("--reconstructions are of the images of B; --num-real chooses them")


def _refuse_settings(made: Made, why: str) -> None:
    usual = Made(made.count)
    for name, value, default in (
        ("--temperature", made.temperatures, usual.temperatures),
        ("--output", made.output, usual.output),
        ("--cond", made.cond, usual.cond),
        ("--guidance", made.guidance, usual.guidance),
    ):
        if value != default:
            raise UserError(f"{name} is for a run's samples, and {why}")


def candidates(fake: RunSide | SetSide, real: Side, made: Made) -> Iterator[Candidate]:
    """Yields what is scored of a side.

    Raises:
        UserError: a conditional model is told what it does not know, or is told nothing of the
            images that it should reconstruct.
    """
    if isinstance(fake, SetSide):
        yield Candidate(fake.images, "images of A")
        return
    from hvae.inference.streams import Reconstructions, Samples
    from hvae.training.sample_quality import told_by

    if made.reconstructions:
        assert isinstance(real, SetSide)
        told = told_by(fake.model, real.images)
        images = Reconstructions(fake.model, real.images, seed=made.seed, told=told)
        yield Candidate(images, "reconstructions", originals=real.images)
        return
    from hvae.cli.condition import read_condition

    rows = read_condition(made.cond, fake.model, fake.weights).rows
    for temperature in made.temperatures:
        samples = Samples(
            fake.model,
            made.count,
            seed=made.seed,
            temperature=temperature,
            output=made.output,
            told=rows,
            guidance=made.guidance,
        )
        yield Candidate(samples, f"samples at temperature {temperature:g}", temperature)
