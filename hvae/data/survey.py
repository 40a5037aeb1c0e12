"""What a DATA word holds, image by image: how many, which sizes, and which files are damaged."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hvae.data.config import DataConfig
from hvae.data.decode import Header, decode, read_header
from hvae.data.listing import list_split
from hvae.data.parallel import parallel_map
from hvae.data.source import WORDS, open_source
from hvae.data.split import Split
from hvae.errors import UserError


@dataclass(frozen=True)
class Survey:
    """A set of images at its own sizes. Counts are over both splits, the commonest first."""

    data: str
    images: dict[str, int]
    """Images of each split, unreadable ones included."""

    sizes: dict[str, int]
    """By "height x width"."""

    channels: dict[str, int]
    """By "1" for grey and "3" for RGB."""

    classes: dict[str, int] | None
    """By name; None for a set without classes."""

    sha256: dict[str, str] | None
    """Content hash of each split; None where images differ in shape or some are unreadable."""

    unreadable: tuple[str, ...]
    """Why each damaged file cannot be read, with its name."""


def survey(word: str) -> Survey:
    """Returns what a DATA word holds; decodes every file of a folder once.

    Raises:
        UserError: if the word names nothing, or there is no image.
    """
    path = Path(word.removeprefix("folder:")).expanduser()
    if word not in ("shapes", *WORDS) and path.is_dir():
        return _survey_folder(word, path)
    config = DataConfig(source=word)
    sources = [open_source(config, split) for split in get_args(Split)]
    total = sum(map(len, sources))
    channels, height, width = sources[0].shape
    labels = [s.labels.tolist() for s in sources if s.labels is not None]
    return Survey(
        data=word,
        images={source.split: len(source) for source in sources},
        sizes={f"{height}x{width}": total},
        channels={str(channels): total},
        classes=_class_counts(sources[0].classes, labels),
        sha256={source.split: source.identity().sha256 for source in sources},
        unreadable=(),
    )


def _survey_folder(word: str, root: Path) -> Survey:
    splits: tuple[Split, ...] = get_args(Split)
    listings = {split: list_split(root, split) for split in splits}
    found = list(parallel_map(_header_or_problem, listings["train"].everything))
    headers = [header for header in found if isinstance(header, Header)]
    problems = tuple(problem for problem in found if isinstance(problem, str))
    sizes = _commonest([f"{header.height}x{header.width}" for header in headers])
    channels = _commonest([str(header.channels) for header in headers])
    sha256 = None
    if len(sizes) == len(channels) == 1 and not problems:
        config = DataConfig(source=word)
        sha256 = {str(s): open_source(config, s).identity().sha256 for s in splits}
    labels = [listing.labels(listing.names) or [] for listing in listings.values()]
    return Survey(
        data=word,
        images={split: len(listing.names) for split, listing in listings.items()},
        sizes=sizes,
        channels=channels,
        classes=_class_counts(listings["train"].classes, labels),
        sha256=sha256,
        unreadable=problems,
    )


def _header_or_problem(path: Path) -> Header | str:
    """Decodes as well: the header of a truncated file is whole."""
    try:
        header = read_header(path)
        decode(path)
    except UserError as error:
        return str(error)
    return header


def _class_counts(names: tuple[str, ...] | None, labels: list[list[int]]) -> dict[str, int] | None:
    if names is None:
        return None
    counts = Counter(label for split in labels for label in split)
    return {name: counts[label] for label, name in enumerate(names)}


def _commonest(values: list[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
