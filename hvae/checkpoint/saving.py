"""How a checkpoint comes to be: staged under a temporary name, then committed by rename."""

import errno
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hvae.checkpoint.files import check_space, full_disk_is_told
from hvae.checkpoint.folder import BEST, LATEST, named_by, point, prune, step_folder, take_name
from hvae.checkpoint.state import file_hashes, read_state, write_state
from hvae.errors import UserError
from hvae.files import sha256, sync, write_text

_STATE_BYTES = 1 << 16  # of state.json and headers, generously


def save(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep_last: int,
    keep: Collection[int] = (),
    best: int | None = None,
) -> Path:
    """Commits a checkpoint and returns its folder; older ones beyond `keep_last` are removed.

    Saved again, the step that is in force keeps its tensors, and its state is replaced.

    Args:
        run: the run folder.
        step: names the checkpoint.
        tensors: tensors by file stem.
        state: the rest, JSON values; sha256 of each file is added.
        keep_last: how many checkpoints to keep, this one included.
        keep: steps of older ones that are kept whatever their age.
        best: step of the checkpoint that the run's `best` names. None: there is no such file.

    Raises:
        StorageError: if there is not enough room; what was saved before is as it was.
    """
    folder = step_folder(run, step)
    hashes = _hashes_in_force(run, folder)
    needed = _STATE_BYTES if hashes is not None else num_bytes(tensors) + _STATE_BYTES
    run.mkdir(parents=True, exist_ok=True)
    check_space(run, needed, "a checkpoint")
    with full_disk_is_told(run, needed, "a checkpoint"):
        if hashes is not None:
            # A folder cannot be exchanged in one move; a kill between two would lose it.
            write_state(folder, state, hashes)
        else:
            with stage(folder) as temporary:
                write_state(temporary, state, write_tensors(temporary, tensors))
                commit(temporary, folder)
        point(run / BEST, best)
    prune(folder, keep_last, keep)
    return folder


def num_bytes(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Returns what tensors take on disk."""
    return sum(t.numel() * t.element_size() for named in tensors.values() for t in named.values())


@contextmanager
def stage(folder: Path) -> Iterator[Path]:
    """Makes the folder that a checkpoint is written to before it has its name.

    Whatever a kill left there goes first; an error leaves nothing.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_tensors(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    """Writes `<stem>.safetensors` files, synced, and returns the sha256 of each by its name."""
    hashes = {}
    with ThreadPoolExecutor() as pool:  # hashes, while the disk is waited for
        for stem, named in tensors.items():
            file = folder / f"{stem}.safetensors"
            try:
                save_file({name: tensor.contiguous() for name, tensor in named.items()}, file)
            except SafetensorError as error:  # its text alone tells the system's error
                raise OSError(errno.EIO, str(error)) from None
            hashes[file.name] = pool.submit(sha256, file)
            sync(file)
    return {name: future.result() for name, future in hashes.items()}


def commit(staged: Path, folder: Path) -> None:
    """Gives a staged checkpoint its name and puts it in force."""
    sync(staged)
    if folder.exists():  # and is not in force
        take_name(folder)
    staged.rename(folder)
    sync(folder.parent)
    write_text(folder.parent.parent / LATEST, folder.name + "\n")


def _hashes_in_force(run: Path, folder: Path) -> dict[str, str] | None:
    """The hashes of a checkpoint's files if it is in force and can be read."""
    try:
        return file_hashes(read_state(folder)) if named_by(run / LATEST) == folder else None
    except UserError:
        return None
