"""A set of images decoded and resized once, into a folder that training maps into memory."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import get_args

from torch import Tensor

from hvae.data.config import DataConfig
from hvae.data.folder import FolderSource
from hvae.data.identity import Identity, named_identity
from hvae.data.manifest import (
    CONDITIONS,
    MANIFEST,
    Manifest,
    Plan,
    Shard,
    Skipped,
    SplitIdentity,
    is_prepared,
    read_json,
    read_manifest,
    shard_name,
)
from hvae.data.plan import Sources, differences, make_plan, open_sources, source_state
from hvae.data.shards import read_rows, write_conditions, write_shard
from hvae.data.split import Split
from hvae.data.workers import usable_cores
from hvae.errors import UserError
from hvae.files import locked, write_text

PROGRESS = ".progress"  # what is done so far, while a folder is being made

# Called with what is done and how much of it there is; lends what is told how far it is.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def prepare(
    config: DataConfig,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Progress = lambda what, total: nullcontext(lambda done: None),
) -> Manifest:
    """Makes a prepared folder of both splits of a set, or goes on with one that was begun.

    What is in the folder at the end depends on the set, the size and the channels alone: neither
    on the number of workers nor on how often the making of it was killed on the way.

    Args:
        config: `source`, `size`, `channels` and `skip_bad` say what is prepared.
        folder: where to; made if it is missing.
        workers: processes that decode. None: one for each core; 0 decodes in this one.
        progress: shows how far it is.

    Raises:
        UserError: if the set cannot be read as wanted, the folder holds something else or cannot
            be written, or the set is not the one that the folder was begun with.
        WorkerLostError: if a worker was killed; the same call goes on.
    """
    sources = open_sources(config)
    plan = make_plan(config.source, sources)
    with _folder_errors(folder):
        _refuse_other_contents(folder)
        if is_prepared(folder):
            manifest = read_manifest(folder)
            _check_goes_on(folder, manifest.plan, plan, manifest.skipped, config)
            shutil.rmtree(folder / PROGRESS, ignore_errors=True)  # of a kill just before the end
            return manifest
        (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder / PROGRESS / "lock"):
                shards = _begin(folder, plan, config)
                count = usable_cores() if workers is None else workers
                _write(folder, plan, sources, shards, count, config.skip_bad, progress)
                return _finish(folder, plan, sources, shards)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is preparing it") from None


def _begin(folder: Path, plan: Plan, config: DataConfig) -> dict[int, Shard]:
    """Writes the plan, or checks the one that is there; returns the finished shards."""
    file = folder / PROGRESS / "plan.json"
    if not file.exists():
        write_text(file, plan.model_dump_json())
        return {}
    records = {
        number: read_json(_record(folder, number), Shard)
        for number in range(plan.num_shards)
        if _record(folder, number).exists() and (folder / shard_name(number)).exists()
    }
    skipped = tuple(entry for record in records.values() for entry in record.skipped)
    _check_goes_on(folder, read_json(file, Plan), plan, skipped, config)
    return records


def _write(
    folder: Path,
    plan: Plan,
    sources: Sources,
    shards: dict[int, Shard],
    workers: int,
    skip_bad: bool,
    progress: Progress,
) -> None:
    """Writes the shards that are missing, in order, and adds them to `shards`."""
    missing = [number for number in range(plan.num_shards) if number not in shards]
    left = sum(len(plan.shard_rows(number)) for number in missing)
    _check_space(folder, left * plan.image_bytes)
    chunks = read_rows(plan, sources, missing, workers, skip_bad=skip_bad)
    with progress("prepared", left) as show:
        done = 0
        for number in missing:

            def advance(rows: int, before: int = done) -> None:
                show(before + rows)

            shard = write_shard(folder / shard_name(number), plan, number, chunks, advance)
            write_text(_record(folder, number), shard.model_dump_json())
            shards[number] = shard
            done += len(plan.shard_rows(number))


def _finish(folder: Path, plan: Plan, sources: Sources, shards: dict[int, Shard]) -> Manifest:
    if source_state(sources) != plan.source_state:
        raise UserError(
            f"{plan.source} has changed while it was read; remove {folder} and prepare it again"
        )
    ordered = [shards[number] for number in range(plan.num_shards)]
    skipped = tuple(entry for shard in ordered for entry in shard.skipped)
    hashes = [sha256 for shard in ordered for sha256 in shard.source_sha256]
    left_out = {entry.row for entry in skipped}
    identity = {}
    for split in get_args(Split):
        kept = [row for row in plan.split_rows(split) if row not in left_out]
        if not kept:
            raise UserError(f"none of the {plan.rows[split]} {split} images can be read")
        found = _identity(sources, kept, hashes) or sources[split].identity()
        identity[split] = SplitIdentity(count=found.count, sha256=found.sha256)
    conditions = {split: source.conditions for split, source in sources.items()}
    manifest = Manifest(
        plan=plan,
        shards=tuple(shard.sha256 for shard in ordered),
        skipped=skipped,
        identity=identity,
        conditions_sha256=_conditions(folder, conditions),
    )
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    shutil.rmtree(folder / PROGRESS)
    return manifest


def _identity(sources: Sources, rows: list[int], hashes: list[str]) -> Identity | None:
    """That of the same files in a folder that is not prepared; None for a set that is no folder."""
    folders = [source for source in sources.values() if isinstance(source, FolderSource)]
    names = [name for folder in folders for name in folder.names]
    if not names:
        return None
    kept = (bytes.fromhex(hashes[row]) for row in rows)
    return named_identity([names[row] for row in rows], kept, folders[0].shape)


def _conditions(folder: Path, conditions: dict[Split, Tensor | None]) -> str | None:
    """Writes what is known of every row; returns the file's hash."""
    tensors = [tensor for tensor in conditions.values() if tensor is not None]
    return write_conditions(folder / CONDITIONS, tensors) if tensors else None


def _refuse_other_contents(folder: Path) -> None:
    """Raises unless the folder is missing, empty, or one that was begun here."""
    if not folder.exists() or is_prepared(folder) or (folder / PROGRESS / "plan.json").exists():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != PROGRESS)
    if others:
        raise UserError(
            f"{folder} holds other files, such as {others[0]}; name an empty or a new folder"
        )


def _check_goes_on(
    folder: Path, before: Plan, now: Plan, skipped: tuple[Skipped, ...], config: DataConfig
) -> None:
    """Raises unless a folder that was begun is one of the set that is wanted now."""
    if found := differences(before, now):
        raise UserError(
            f"{folder} was prepared with {'; '.join(found)}. Name another folder, or remove this "
            "one to prepare it anew"
        )
    if skipped and not config.skip_bad:
        raise UserError(
            f"{folder} was prepared without {len(skipped)} unreadable files, such as "
            f"{skipped[0].name}; mend them, or say --skip-bad to leave them out"
        )


def _check_space(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise UserError(
            f"{folder}: {wanted / 2**30:.1f} GiB are to be written, and {free / 2**30:.1f} GiB are "
            "free on that disk"
        )


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    """Turns a disk that is full or read-only into a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}; the same command goes on once it can"
        ) from None


def _record(folder: Path, number: int) -> Path:
    return folder / PROGRESS / f"{number:05}.json"
