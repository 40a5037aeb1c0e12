"""The checkpoints of a run folder: which is in force, which is complete, which may go.

`latest` and `best` are files that name a checkpoint. Every folder `step-<n>` is whole, since it
gets that name, and loses it, by one rename each.
"""

import re
import shutil
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hvae.checkpoint.state import STATE, damage
from hvae.errors import UserError
from hvae.files import sync, write_text

CHECKPOINTS, LATEST, BEST = "checkpoints", "latest", "best"
_NAME = re.compile(r"step-(\d{1,18})")
_MOST_POINTER_BYTES = 256


@dataclass(frozen=True)
class Damage:
    """A checkpoint, or a `latest`, that cannot be used, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """The newest complete checkpoint of a run, if any, and what is damaged before it."""

    checkpoint: Path | None
    damaged: tuple[Damage, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self.damaged))


def step_folder(run: Path, step: int) -> Path:
    """Returns where a run's checkpoint of a step is."""
    return run / CHECKPOINTS / f"step-{step}"


def step_of(checkpoint: Path) -> int:
    """Returns the step in a checkpoint's name, which must be one."""
    return int(checkpoint.name.removeprefix("step-"))


def named_by(pointer: Path) -> Path | None:
    """Returns the checkpoint folder that `latest` or `best` names; None if there is no such file.

    Raises:
        UserError: if it holds anything but the name of a checkpoint.
    """
    try:
        with pointer.open(encoding="utf-8") as stream:
            name = stream.read(_MOST_POINTER_BYTES).strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{pointer}: cannot be read: {error}") from None
    if not _NAME.fullmatch(name):
        raise UserError(f"{pointer}: wanted the name of a checkpoint, as in step-100, got {name!r}")
    return pointer.parent / CHECKPOINTS / name


def latest_checkpoint(run: Path) -> Path | None:
    """Returns the checkpoint that a run folder's `latest` names, unread, or None.

    Raises:
        UserError: if that is gone, or `latest` is damaged.
    """
    checkpoint = named_by(run / LATEST)
    if checkpoint is not None and not (checkpoint / STATE).is_file():
        raise UserError(
            f"{run / LATEST} names {checkpoint.name}, which is not in {checkpoint.parent}"
        )
    return checkpoint


def has_checkpoints(run: Path) -> bool:
    """Returns whether a folder holds checkpoints of a run, in whatever state."""
    return (run / LATEST).exists() or bool(_numbered(run))


def newest_complete(
    run: Path, *, at_most: int | None = None, only: Collection[str] | None = None
) -> Found:
    """Returns the newest checkpoint of a run that is complete and unchanged.

    The one that `latest` names comes first, then those of earlier steps. Later ones belong to a
    run that went back, or to a save that was killed; they count if `latest` is of no use.

    Args:
        run: its folder.
        at_most: looks at this step, whatever `latest` names, and at earlier ones.
        only: names of the files that will be read. None: all.
    """
    damaged = []
    first = None if at_most is None else step_folder(run, at_most)
    if first is None:
        try:
            first = named_by(run / LATEST)
            if first is None and _numbered(run):
                damaged.append(Damage(run / LATEST, "it is missing"))
        except UserError as error:
            damaged.append(Damage(run / LATEST, str(error).removeprefix(f"{run / LATEST}: ")))
    known = dict(_numbered(run))
    if first is not None:
        known = {n: folder for n, folder in known.items() if n <= step_of(first)}
        known[step_of(first)] = first
    for step in sorted(known, reverse=True):
        reason = damage(known[step], only)
        if reason is None:
            return Found(known[step], tuple(damaged))
        damaged.append(Damage(known[step], reason))
    return Found(None, tuple(damaged))


def adopt(run: Path, found: Found) -> None:
    """Puts the checkpoint that was found in force, and sets damaged ones aside under a new name.

    Warns of what happened. The names go before `latest` does: after a kill in between the next
    start finds the same.
    """
    if not found.damaged:
        return
    assert found.checkpoint is not None
    aside = [_set_aside(d.path) for d in found.damaged if d.path.is_dir()]
    write_text(run / LATEST, found.checkpoint.name + "\n")
    kept = f" Set aside as {', '.join(path.name for path in aside)}." if aside else ""
    warnings.warn(f"{run}: {found}.{kept} Going on from {found.checkpoint.name}", stacklevel=2)


def rewind(run: Path, step: int) -> Path:
    """Puts an older checkpoint of a run in force again, removes newer ones, returns its folder.

    Where it is damaged, the newest complete one before it takes its place, with a warning.

    Raises:
        UserError: if there is none.
    """
    found = newest_complete(run, at_most=step)
    if found.checkpoint is None:
        raise UserError(
            f"{step_folder(run, step)}: this checkpoint is gone or damaged, and the run has to go "
            f"back to it ({found})"
        )
    adopt(run, found)
    write_text(run / LATEST, found.checkpoint.name + "\n")
    for newer, folder in _numbered(run):
        if newer > step_of(found.checkpoint):
            remove(folder)
    return found.checkpoint


def point(pointer: Path, step: int | None) -> None:
    """Makes `best` name a checkpoint of its run, or takes it away."""
    if step is None:
        pointer.unlink(missing_ok=True)
    elif (text := f"step-{step}\n") and not (pointer.is_file() and pointer.read_text() == text):
        write_text(pointer, text)


def prune(newest: Path, keep_last: int, keep: Collection[int]) -> None:
    """Removes checkpoints beyond the last ones and those to keep, and what kills left behind.

    Those ahead of the newest belong to a run that was rewound; they are stale too.
    """
    run, step = newest.parent.parent, step_of(newest)
    older = sorted((n, folder) for n, folder in _numbered(run) if n <= step)
    stale = [folder for n, folder in _numbered(run) if n > step]
    stale += [folder for n, folder in older[:-keep_last] if n not in keep]
    for folder in stale:
        remove(folder)
    for folder in newest.parent.glob(".step-*"):
        shutil.rmtree(folder)


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint: first its name, so that none is ever found half removed."""
    shutil.rmtree(take_name(checkpoint))


def take_name(checkpoint: Path) -> Path:
    """Renames a checkpoint to what `prune` removes, and returns that."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    return checkpoint.rename(hidden)


def _set_aside(checkpoint: Path) -> Path:
    number, aside = 1, checkpoint.with_name(f"damaged-{checkpoint.name}")
    while aside.exists():
        number += 1
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}-{number}")
    checkpoint.rename(aside)
    sync(aside.parent)
    return aside


def _numbered(run: Path) -> list[tuple[int, Path]]:
    folders = (run / CHECKPOINTS).glob("step-*")
    return [(step_of(f), f) for f in folders if _NAME.fullmatch(f.name) and f.is_dir()]
