"""The user's own extractor, named as `module:Class`; modules of the working directory count.

What the class offers, on itself or its instances:

    dim          int, numbers per image
    __call__     uint8 (N, 3, H, W) on the extractor's device -> float32 (N, dim); it resizes itself
    protocols    optional, names of the resizing protocols it knows; the class is then constructed
                 with the one asked for, `Class(protocol=...)`, and otherwise as `Class()`
    sha256       optional, identifies its weights

An `nn.Module` is moved to the device and set to evaluation mode. Without a `sha256` of its own, the
hash covers the source file of the class and, for a module, its tensors: a class that reads weights
in other ways should offer one, or a changed file of weights goes unnoticed.
"""

import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics.features.base import CHUNK, exact_float32
from hvae.metrics.features.weights import file_sha256, tensors_sha256
from hvae.metrics.protocol import check_protocol, to_rgb

OWN_PROTOCOL = "own"


@dataclass(frozen=True)
class CustomExtractor:
    """A user's extractor with the names and checks of `hvae.metrics.features.Extractor`."""

    name: str
    dim: int
    sha256: str
    protocol: str
    frechet_name: str
    kernel_name: str
    extract: Any
    device: torch.device
    chunk: int = CHUNK

    def prepare(self, images: Tensor) -> Tensor:
        """Returns images in colour, uint8 (N, 3, H, W): the class resizes them itself."""
        return to_rgb(images.to(self.device)).contiguous()

    @torch.no_grad()
    def embed(self, prepared: Tensor) -> Tensor:
        """Returns features, float32 (N, dim); see `Extractor`.

        Raises:
            UserError: the class fails, or returns something else.
        """
        with exact_float32(self.device), _users_code(f"{self.name}: failed on images"):
            features = self.extract(prepared)
        if not isinstance(features, Tensor):
            raise UserError(f"{self.name}: wanted a tensor, got a {type(features).__name__}")
        wanted = (len(prepared), self.dim)
        if features.dtype != torch.float32 or features.shape != wanted:
            raise UserError(
                f"{self.name}: wanted features float32 {wanted}, got "
                f"{str(features.dtype).removeprefix('torch.')} {tuple(features.shape)}"
            )
        return features.to(self.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Returns features, float32 (N, dim); see `Extractor`."""
        return self.embed(self.prepare(images))


def open_custom(
    name: str, protocol: str | None = None, *, device: torch.device | str = "cpu"
) -> CustomExtractor:
    """Returns the user's extractor; its scores are called FD-<name> and KD-<name>.

    Args:
        name: `module:Class`.
        protocol: one of the class's `protocols`, by default their first; "own" for a class
            without.
        device: where it runs.

    Raises:
        UserError: there is no such module or class, it cannot be made, or lacks `dim`.
    """
    device = torch.device(device)
    cls = _load_class(name)
    protocols = _protocols(name, cls)
    protocol = protocol or protocols[0]
    check_protocol(protocol, protocols, name)
    with _users_code(f"{name}: cannot be constructed"):
        extract = cls() if protocols == (OWN_PROTOCOL,) else cls(protocol=protocol)
        if isinstance(extract, nn.Module):
            extract.to(device).eval().requires_grad_(False)
        dim = getattr(extract, "dim", None)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise UserError(f"{name}: wanted an attribute dim, a positive integer, got {dim!r}")
    if not callable(extract):
        raise UserError(f"{name}: wanted a method __call__, and there is none")
    return CustomExtractor(
        name=name,
        dim=dim,
        sha256=_sha256(name, cls, extract),
        protocol=protocol,
        frechet_name=f"FD-{name}",
        kernel_name=f"KD-{name}",
        extract=extract,
        device=device,
    )


def _load_class(name: str) -> Any:
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise UserError(f"features: wanted module:Class, got {name!r}")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    with _users_code(f"{name}: importing it failed"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise UserError(f"{name}: no module {error.name} here or installed") from None
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise UserError(f"{name}: {module_name} has no class {class_name}")
    return found


def _protocols(name: str, cls: Any) -> tuple[str, ...]:
    """The names of the protocols that a class knows, its own where it says nothing."""
    found = getattr(cls, "protocols", ())
    if not isinstance(found, list | tuple) or not all(isinstance(known, str) for known in found):
        raise UserError(f"{name}: wanted protocols to be a tuple of names, got {found!r}")
    return tuple(found) or (OWN_PROTOCOL,)


def _sha256(name: str, cls: Any, extract: Any) -> str:
    """Its own `sha256`, or one over its source file and tensors."""
    own = getattr(extract, "sha256", None)
    if own is not None:
        if not isinstance(own, str) or not own:
            raise UserError(f"{name}: wanted sha256 to be a text, got {own!r}")
        return own
    try:
        source = file_sha256(Path(inspect.getfile(cls)))
    except (TypeError, OSError):
        raise UserError(f"{name}: has no source file to identify it; offer a sha256") from None
    tensors = tensors_sha256(extract.state_dict()) if isinstance(extract, nn.Module) else ""
    return hashlib.sha256(f"{source} {tensors}".encode()).hexdigest()


@contextmanager
def _users_code(what: str) -> Iterator[None]:
    """Runs code of the user's: whatever it raises is a UserError, what it prints goes to stderr.

    That includes SystemExit, which a script without a guard raises when it is imported; standard
    output is for results alone.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = (str(error).splitlines() or [""])[0]
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise UserError(f"{what}: {type(error).__name__}: {reason} ({place})") from error
