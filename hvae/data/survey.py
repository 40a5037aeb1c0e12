"""What a DATA word holds, image by image: counts, sizes, kinds, and every problem by name."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from hvae.data.config import DataConfig
from hvae.data.decode import Header, ImageError, examine
from hvae.data.listing import list_split, printable, scan
from hvae.data.manifest import read_manifest
from hvae.data.parallel import parallel_map
from hvae.data.prepared import changed_files
from hvae.data.source import ImageSource, kind_and_path, open_source, stands_alone
from hvae.data.split import Split

LINK_REASONS = {
    "link loop": "it leads back to itself or to a folder that it lies in, and is not followed",
    "repeated folder": "what it leads to is read under another name; nothing is read twice",
    "broken link": "it leads to nothing",
}


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used as it is.

    Attributes:
        kind: a word or two, the same for all problems of one kind.
        file: its path.
        reason: one line.
    """

    kind: str
    file: str
    reason: str


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

    unreadable: tuple[Problem, ...] = ()
    """Images that cannot be read, or shards of a prepared folder that have changed."""

    links: tuple[Problem, ...] = ()
    """Links that lead nowhere, or to what is read anyway."""

    converted: dict[str, int] = field(default_factory=dict)
    """Images that are read by a rule of conversion, by its kind: CMYK, 16-bit, rotated, ..."""

    others: dict[str, int] = field(default_factory=dict)
    """Files that are no images, by suffix."""


def survey(word: str) -> Survey:
    """Returns what a DATA word holds; reads every file of a folder once.

    Raises:
        UserError: if the word names nothing, or there is no image.
    """
    if stands_alone(word):
        return _survey_arrays(word)
    kind, path = kind_and_path(word)
    if kind == "folder":
        return _survey_folder(word, path)
    if kind == "prepared":
        return _survey_prepared(word, path)
    return _survey_arrays(word)


def _survey_arrays(word: str, unreadable: tuple[Problem, ...] = ()) -> Survey:
    sources = [open_source(DataConfig(source=word), split) for split in get_args(Split)]
    total = sum(map(len, sources))
    channels, height, width = sources[0].shape
    return Survey(
        data=word,
        images={source.split: len(source) for source in sources},
        sizes={f"{height}x{width}": total},
        channels={str(channels): total},
        classes=_class_counts(sources[0].classes, _labels(sources)),
        sha256={source.split: source.identity().sha256 for source in sources},
        unreadable=unreadable,
    )


def _survey_prepared(word: str, folder: Path) -> Survey:
    """Also names what was left out when the folder was made."""
    manifest = read_manifest(folder)
    skipped = [Problem(entry.kind, entry.name, entry.reason) for entry in manifest.skipped]
    changed = [
        Problem("changed", str(folder / name), "its bytes are not those that were written")
        for name in changed_files(folder, manifest)
    ]
    return _survey_arrays(word, (*changed, *skipped))


def _survey_folder(word: str, root: Path) -> Survey:
    splits: tuple[Split, ...] = get_args(Split)
    listings = {split: list_split(root, split) for split in splits}
    found = list(parallel_map(_examined, listings["train"].everything))
    readable = [entry for entry in found if not isinstance(entry, Problem)]
    problems = tuple(entry for entry in found if isinstance(entry, Problem))
    sizes = _commonest(f"{header.height}x{header.width}" for header, _ in readable)
    channels = _commonest(str(header.channels) for header, _ in readable)
    sha256 = None
    if len(sizes) == len(channels) == 1 and not problems:
        config = DataConfig(source=word)
        sha256 = {str(s): open_source(config, s).identity().sha256 for s in splits}
    labels = [listing.labels(listing.names) or [] for listing in listings.values()]
    scans = {part: scan(part) for part in sorted({listing.root for listing in listings.values()})}
    return Survey(
        data=word,
        images={split: len(listing.names) for split, listing in listings.items()},
        sizes=sizes,
        channels=channels,
        classes=_class_counts(listings["train"].classes, labels),
        sha256=sha256,
        unreadable=problems,
        links=tuple(
            Problem(kind, printable(str(part / name)), LINK_REASONS[kind])
            for part, found in scans.items()
            for name, kind in found.dead_links.items()
        ),
        converted=_commonest(kind for _, kinds in readable for kind in kinds),
        others=_summed(found.others for found in scans.values()),
    )


def _examined(path: Path) -> tuple[Header, tuple[str, ...]] | Problem:
    try:
        return examine(path)
    except ImageError as error:
        return Problem(error.kind, printable(str(path)), printable(error.reason))


def _labels(sources: list[ImageSource]) -> list[list[int]]:
    return [source.labels.tolist() for source in sources if source.labels is not None]


def _class_counts(names: tuple[str, ...] | None, labels: list[list[int]]) -> dict[str, int] | None:
    if names is None:
        return None
    counts = Counter(label for split in labels for label in split)
    return {name: counts[label] for label, name in enumerate(names)}


def _commonest(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())
