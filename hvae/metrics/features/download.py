"""Downloads of published weights: only on demand, checked, whole or not at all."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from hvae.errors import UserError
from hvae.files import locked, replacing
from hvae.metrics.features.weights import WeightsFile, cache_folder

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the bytes expected."""

_BLOCK_BYTES = 2**20
_TIMEOUT_SECONDS = 30


def download(file: WeightsFile, progress: Progress | None = None) -> Path:
    """Returns the place in the cache folder where a published file now lies.

    It appears there whole and with its sha256 checked, or not at all.

    Raises:
        UserError: the server, the network or the disk fails, more or fewer bytes come than were
            published, their sha256 is another, or another process downloads the file now.
    """
    target = cache_folder() / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{file.name}.lock")), replacing(target) as stream:
            _receive(file, stream, progress)
    except BlockingIOError:
        raise UserError(f"{target}: another process downloads it now; try again later") from None
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(f"{file.url}: cannot be downloaded: HTTP {error.code}") from None
    except urllib.error.URLError as error:
        raise UserError(f"{file.url}: cannot be downloaded: {error.reason}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{file.url}: cannot be downloaded to {target}: {reason}") from None
    return target


def _receive(file: WeightsFile, stream: BinaryIO, progress: Progress | None) -> None:
    """Copies the bytes of a file to a stream; raises UserError if they are not those published."""
    digest, received = hashlib.sha256(), 0
    with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response:
        while block := response.read(_BLOCK_BYTES):
            received += len(block)
            if received > file.num_bytes:
                raise UserError(f"{file.url}: sends more than the {file.num_bytes} bytes published")
            digest.update(block)
            stream.write(block)
            if progress is not None:
                progress(received, file.num_bytes)
    if digest.hexdigest() != file.sha256:
        raise UserError(
            f"{file.url}: sent {received} bytes with sha256 {digest.hexdigest()}, wanted "
            f"{file.num_bytes} with {file.sha256}"
        )
