"""What a prepared folder is to hold, and whether that is still what was begun."""

import hashlib
import math
from pathlib import Path
from typing import get_args

from hvae.data.config import DataConfig
from hvae.data.folder import FolderSource, open_unchecked
from hvae.data.listing import printable
from hvae.data.manifest import Plan
from hvae.data.parallel import parallel_map
from hvae.data.source import ImageSource, kind_and_path, open_source, stands_alone
from hvae.data.split import Split
from hvae.errors import UserError

Sources = dict[Split, ImageSource]

# A shard is the unit of going on after a kill, and small enough for any file system.
SHARD_BYTES = 2**28

SHOWN = 3  # new or missing files named in a message


def open_sources(config: DataConfig) -> Sources:
    """Both splits of a set; of a folder also the files that cannot be read.

    Raises:
        UserError: if the set cannot be read as wanted, or is a prepared one already.
    """
    splits: tuple[Split, ...] = get_args(Split)
    if not stands_alone(config.source):
        kind, path = kind_and_path(config.source)
        if kind == "prepared":
            raise UserError(f"{config.source} is prepared already; name what it was made from")
        if kind == "folder":
            return {split: open_unchecked(path, split, config) for split in splits}
    return {split: open_source(config, split) for split in splits}


def make_plan(word: str, sources: Sources) -> Plan:
    """The plan for a set, as found now."""
    train, test = sources["train"], sources["test"]
    files = [source.names for source in sources.values() if isinstance(source, FolderSource)]
    labels = [source.labels.tolist() for source in (train, test) if source.labels is not None]
    return Plan(
        source=word,
        source_state=source_state(sources),
        name=train.name,
        shape=train.shape,
        rows_per_shard=max(1, SHARD_BYTES // math.prod(train.shape)),
        rows={"train": len(train), "test": len(test)},
        names=tuple(printable(name) for names in files for name in names) if files else None,
        labels=tuple(label for split in labels for label in split) if labels else None,
        classes=train.classes,
    )


def source_state(sources: Sources) -> str:
    """A hash that is another one once a set has changed.

    Files are taken by name, size and time of their last change, which costs no reading; arrays by
    their pixels.
    """
    digest = hashlib.sha256()
    for split, source in sources.items():
        digest.update(f"{split}\n".encode())
        if isinstance(source, FolderSource):
            paths = [source.path(index) for index in range(len(source))]
            for name, state in zip(source.names, parallel_map(_file_state, paths), strict=True):
                digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + state)
        else:
            digest.update(source.identity().sha256.encode("ascii"))
    return digest.hexdigest()


def differences(before: Plan, now: Plan) -> list[str]:
    """What differs between two plans, in words; the spelling of the DATA word may."""
    found = [
        f"{key} {old} (now {new})"
        for key in ("shape", "name", "classes", "resampling", "crop")
        if (old := getattr(before, key)) != (new := getattr(now, key))
    ]
    if not found and before.rows_per_shard != now.rows_per_shard:
        found = [f"{before.rows_per_shard} images a file (now {now.rows_per_shard})"]
    if found or before == now.model_copy(update={"source": before.source}):
        return found
    names, names_now = set(before.names or ()), set(now.names or ())
    listed = [
        f"{len(changed)} files {what}, such as {', '.join(sorted(changed)[:SHOWN])}"
        for what, changed in (("new", names_now - names), ("gone", names - names_now))
        if changed
    ]
    return [f"a source that has changed since ({', '.join(listed) or 'the content of files'})"]


def _file_state(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError:
        return b"unreadable\n"  # a broken link; that it is skipped is decided by who reads it
    return f"{status.st_size} {status.st_mtime_ns}\n".encode("ascii")
