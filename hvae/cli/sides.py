"""What `hvae fid` compares: a run, a set of images, or statistics that were made before."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hvae.errors import UserError
from hvae.files import user_path

if TYPE_CHECKING:
    from hvae.data.originals import Chosen, Part
    from hvae.models import HVAE

JPEG = (".jpg", ".jpeg")
LISTED = 5  # kinds named in a note
_FEWEST = 2  # images that have a covariance


@dataclass(frozen=True)
class Reading:
    """How sets are read.

    Attributes:
        seed: chooses the images, where not all are taken.
        size: side in pixels that images are fitted to. None: their own, or a run's.
        skip_bad: leave unreadable files out.
        refined: runs make refined images. None: if they have a refiner.
    """

    seed: int = 0
    size: int | None = None
    skip_bad: bool = False
    refined: bool | None = None


@dataclass(frozen=True)
class RunSide:
    """A trained model, and its weights file."""

    model: "HVAE"
    weights: Path

    def record(self) -> dict[str, Any]:
        """What names it."""
        from hvae.cli.run import weights_record

        return {**weights_record(self.weights), "refined": self.model.refiner is not None}


@dataclass(frozen=True)
class SetSide:
    """Images, the DATA word that names them, and what they are like."""

    images: "Chosen"
    word: str
    traits: dict[str, dict[str, int]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What names it."""
        source = self.images.source
        identity = source.identity()
        return {
            "data": source.name,
            "split": source.split,
            "sha256": identity.sha256,
            "images_in_split": identity.count,
        }


@dataclass(frozen=True)
class FileSide:
    """A file of statistics, not yet read."""

    file: Path

    def record(self) -> dict[str, Any]:
        """What names it."""
        return {"statistics": str(self.file)}


Side = RunSide | SetSide | FileSide


def open_side(
    word: str | None,
    part: "Part | None",
    count: int | None,
    reading: Reading,
    *,
    like: "Side | None" = None,
) -> Side:
    """Opens what a word names.

    Args:
        word: a run, a checkpoint, a file of weights or of statistics, or DATA. None: the data of
            the run `like`.
        part: which split of DATA; None: see `hvae.data.originals.open_part`.
        count: images of DATA, and nothing to a run. None: all.
        reading: how DATA is read.
        like: the other side; a run's size and channels are then those that DATA is read at.

    Raises:
        UserError: there is no such thing, it cannot be read, or something is asked of it that only
            DATA has.
    """
    from hvae.metrics.reference import is_reference

    run = like if isinstance(like, RunSide) else None
    if word is None:
        if run is None:
            raise UserError("--real is missing: wanted DATA, a run or a file of statistics")
        if not run.weights.with_name("state.json").is_file():
            raise UserError(f"{run.weights} does not say what it was trained on; give --real")
        return _open_set(None, part or "test", count, reading, run)
    path = user_path(word)
    if is_reference(path) or _stands_alone(path):
        if count is not None and is_reference(path):
            raise UserError(f"{word} holds statistics: leave --num and --num-real of images out")
        _refuse_split(word, part)
        return FileSide(path)
    if path.suffix == ".safetensors" and not path.is_file():
        raise UserError(f"{word}: {'no regular file' if path.exists() else 'no such file'}")
    if _is_run(path):
        from hvae.cli.run import open_model

        _refuse_split(word, part)
        return RunSide(*open_model(path, refined=reading.refined))
    return _open_set(word, part, count, reading, run)


def _refuse_split(word: str, part: "Part | None") -> None:
    if part is not None:
        raise UserError(f"{word} is no set of images: it has no split {part} to choose")


def _stands_alone(path: Path) -> bool:
    """Whether a file of tensors cannot be weights: their configuration lies beside them."""
    beside = (path.with_name(name) for name in ("config.json", "state.json"))
    return path.suffix == ".safetensors" and path.is_file() and not any(map(Path.is_file, beside))


def _is_run(path: Path) -> bool:
    """Whether a path is that of a run, a checkpoint or a file of weights."""
    from hvae import checkpoint

    if path.suffix == ".safetensors":
        return True
    run = path.parent if path.name in ("best", "latest") and not path.is_dir() else path
    return (path / "state.json").is_file() or checkpoint.has_checkpoints(run)


def _open_set(
    word: str | None, part: "Part | None", count: int | None, reading: Reading, run: RunSide | None
) -> SetSide:
    from hvae.cli.run import data_config
    from hvae.data import DataConfig
    from hvae.data.originals import Chosen, OriginalFolder, open_part

    if run is None:
        assert word is not None
        channels: Literal[3] | None = None if reading.size is None else 3  # grey is repeated
        # A name of a file may hold bytes that are no UTF-8, which validation refuses.
        config = DataConfig.model_construct(
            source=word, size=reading.size, channels=channels, skip_bad=reading.skip_bad
        )
    else:
        _, *size = run.model.shape
        if reading.size is not None and any(side != reading.size for side in size):
            raise UserError(
                f"--size {reading.size}: images that are compared with a run's are read at its "
                f"size, {'x'.join(map(str, size))}"
            )
        config = data_config(run.weights, run.model, word)
        config = config.model_copy(update={"skip_bad": reading.skip_bad or config.skip_bad})
    source = open_part(config, part)
    traits = source.traits() if isinstance(source, OriginalFolder) else {}
    images = Chosen(source, count, seed=reading.seed)
    if len(images) < _FEWEST:
        raise UserError(
            f"{source.name} {source.split}: wanted at least 2 images, got {len(images)}"
        )
    return SetSide(images, config.source, traits)


def differences(fake: Side, real: Side) -> list[str]:
    """Returns what sets the files of both sides apart, beside what they show."""
    sides = [side for side in (fake, real) if isinstance(side, SetSide)]
    notes = [note for side in sides for note in _oddities(side)]
    stored = [{suffix in JPEG for suffix in side.traits.get("formats", {})} for side in sides]
    if len(stored) == 2 and all(stored) and stored[0] != stored[1]:
        notes.append("one side is stored as JPEG, the other is not: that alone moves the score")
    return notes


def _oddities(side: SetSide) -> list[str]:
    name, traits = side.images.source.name, side.traits
    notes = []
    if len(sizes := traits.get("sizes", {})) > 1:
        notes.append(f"{name} holds images of several sizes: {_listed(sizes)}")
    if len(channels := traits.get("channels", {})) > 1:
        notes.append(f"{name}: {channels['1']} grey images are repeated to RGB")
    if converted := traits.get("converted"):
        notes.append(f"{name}: converted on reading: {_listed(converted)}")
    return notes


def _listed(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} x {count}" for name, count in list(counts.items())[:LISTED])
    return shown + (f" and {len(counts) - LISTED} kinds more" if len(counts) > LISTED else "")
