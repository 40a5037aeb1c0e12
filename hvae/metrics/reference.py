"""What generated images are compared with, and its statistics as a file.

    fid-stats.safetensors    mean [d], cov [d, d], chol [d, d], float64; header: what it is of

A file says which images it is of, by a hash of their content, and which network and protocol it was
made with. One that was made with others is refused, so that a stale file cannot be used unnoticed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from hvae.errors import UserError
from hvae.files import replacing
from hvae.metrics.moments import Statistics
from hvae.zipped import stored_array, zipped_names

FORMAT = "hvae statistics 1"
EXTERNAL = "external"  # statistics that another program made, and says nothing of

_TENSORS = ("mean", "cov", "chol")
_MOST_DIMS = 2**14  # a covariance of 2 GiB
# The largest entry by which a covariance may differ from its transpose, as a part of its largest.
_ASYMMETRY = 1e-6
_MOST_APART = 1e-6  # products of a covariance and of its stored factor, relatively


@dataclass(frozen=True)
class Reference:
    """The statistics of a set's features, and where they come from.

    Attributes:
        statistics: of the features.
        provenance: strings by name: "features", "features_sha256", "protocol", "data", "split",
            "content_hash", "n" and what else is known.
        features: the rows themselves (n, d), where they are at hand.
    """

    statistics: Statistics
    provenance: Mapping[str, str] = field(default_factory=dict)
    features: Tensor | None = None

    @property
    def count(self) -> int | None:
        """Images it is of; None where another program's file does not say."""
        return None if self.provenance.get("provenance") == EXTERNAL else self.statistics.count


def content_hash(data_sha256: str, features_sha256: str, protocol: str, rows: Sequence[int]) -> str:
    """Returns what keys statistics: a sha256 over images, network, protocol and chosen rows.

    Args:
        data_sha256: content hash of the set.
        features_sha256: hash of the network.
        protocol: how images were resized.
        rows: places in the set of the images that were taken.
    """
    digest = hashlib.sha256(f"{data_sha256}\n{features_sha256}\n{protocol}\n".encode())
    digest.update(np.asarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()


def save_reference(reference: Reference, file: Path) -> None:
    """Writes statistics with their provenance, whole or not at all."""
    statistics = reference.statistics.factored()
    tensors = {"mean": statistics.mean, "cov": statistics.cov, "chol": statistics.cholesky}
    found = {
        name: tensor.cpu().contiguous() for name, tensor in tensors.items() if tensor is not None
    }
    header = {"format": FORMAT, **reference.provenance, "n": str(statistics.count)}
    with replacing(file) as stream:
        stream.write(save(found, header))


def is_reference(file: Path) -> bool:
    """Whether a file holds statistics, of this program's or of others': by its header alone."""
    if file.suffix == ".npz":
        return {"mu.npy", "sigma.npy"} <= set(zipped_names(file))
    if file.suffix == ".safetensors" and file.is_file():
        try:
            with safe_open(file, "pt") as stored:
                return str((stored.metadata() or {}).get("format", "")).startswith(
                    "hvae statistics"
                )
        except Exception:  # hostile headers raise more kinds than can be listed
            return False
    return False


def load_reference(file: Path) -> Reference:
    """Returns the statistics in a file: this program's, or `mu` and `sigma` in a .npz.

    The covariance is factored, where it is of more images than features, for all that follows.

    Raises:
        UserError: naming the file, if it cannot be read, is pickled, or does not hold a finite mean
            (d,) and a symmetric, positive semi-definite covariance (d, d).
    """
    tensors, provenance = _npz(file) if file.suffix == ".npz" else _safetensors(file)
    mean, cov = _checked(file, tensors["mean"], tensors["cov"])
    external = provenance.get("provenance") == EXTERNAL
    # One that does not say how many images it is of is taken to be of more than it has features.
    count = len(mean) + 1 if external else _count(file, provenance.get("n", ""))
    cholesky = tensors.get("chol")
    if cholesky is not None and not _is_factor(cholesky, cov):
        raise UserError(f"{file}: its factor chol is not that of its covariance; make it again")
    try:
        statistics = Statistics(count, mean, cov, cholesky).factored()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return Reference(statistics, provenance)


def check_fits(reference: Reference, wanted: Mapping[str, str], file: Path) -> None:
    """Raises UserError where statistics were made with another network or protocol than is asked.

    Args:
        reference: from a file; external ones say nothing and are checked for their size alone.
        wanted: "features", "features_sha256", "protocol", and "dim" of the network.
        file: for the message.
    """
    dim = str(len(reference.statistics.mean))
    if dim != wanted["dim"]:
        raise UserError(
            f"{file} holds {dim} features of an image, {wanted['features']} gives {wanted['dim']}"
        )
    for name in ("features", "features_sha256", "protocol"):
        found = reference.provenance.get(name)
        if reference.provenance.get("provenance") != EXTERNAL and found != wanted[name]:
            raise UserError(
                f"{file} was made with {name} {found}, asked for is {wanted[name]}; make it again "
                "with hvae fid-stats"
            )


def _safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, "pt") as stored:
            provenance = dict(stored.metadata() or {})
            names = set(stored.keys())
            shapes = {name: stored.get_slice(name).get_shape() for name in names}
            _check_header(file, provenance, shapes)
            tensors = {name: stored.get_tensor(name) for name in names}
    except UserError:
        raise
    except Exception as error:  # hostile headers raise more kinds than can be listed
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read the statistics in {file}: {reason}") from None
    return tensors, provenance


def _check_header(file: Path, provenance: dict[str, str], shapes: dict[str, list[int]]) -> None:
    if provenance.get("format") != FORMAT:
        raise UserError(
            f"{file}: its header says format={provenance.get('format')!r}, wanted {FORMAT!r}: a "
            "file that hvae fid-stats wrote"
        )
    # It would be taken for one that says nothing, and not be checked.
    if "provenance" in provenance:
        raise UserError(f"{file}: its header says provenance, as no file of hvae fid-stats does")
    if not {"mean", "cov"} <= shapes.keys() <= set(_TENSORS):
        raise UserError(f"{file} holds {', '.join(sorted(shapes)) or 'nothing'}; wanted mean, cov")


def _npz(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`mu` and `sigma`, as pytorch-fid, ADM and EDM store them."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored_array(file, stored, name) for name in ("mu", "sigma")}
    except UserError:
        raise
    except Exception as error:  # hostile files raise more kinds than can be listed
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read the statistics in {file}: {reason}") from None
    tensors = {}
    for name, array in arrays.items():
        if array is None or array.dtype.kind != "f":
            what = "is missing" if array is None else f"is {array.dtype}"
            raise UserError(f"{file}: {name} {what}; wanted floats mu (d,) and sigma (d, d)")
        tensors[name] = torch.from_numpy(np.asarray(array, dtype=np.float64))
    return {"mean": tensors["mu"], "cov": tensors["sigma"]}, {"provenance": EXTERNAL}


def _checked(file: Path, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """A mean and a covariance as float64, of shapes that belong together, finite and symmetric."""
    dim = mean.numel()
    if mean.ndim != 1 or cov.shape != (dim, dim) or not 1 <= dim <= _MOST_DIMS:
        raise UserError(
            f"{file}: mean {_by(mean)} and covariance {_by(cov)} do not belong together; wanted d "
            f"and d x d, d at most {_MOST_DIMS}"
        )
    if not (mean.is_floating_point() and cov.is_floating_point()):
        raise UserError(f"{file}: mean {mean.dtype} and covariance {cov.dtype} are no floats")
    mean, cov = mean.double(), cov.double()
    if not (mean.isfinite().all() and cov.isfinite().all()):
        raise UserError(f"{file}: its mean or covariance is not finite; make it again")
    if (cov - cov.T).abs().max() > _ASYMMETRY * cov.abs().max() or (cov.diagonal() < 0).any():
        raise UserError(f"{file}: its covariance is not symmetric, or a variance is negative")
    return mean, cov


def _count(file: Path, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15 and int(text) >= 2):
        raise UserError(f"{file}: its header says n={text[:20]!r}; wanted a number of images")
    return int(text)


def _is_factor(cholesky: Tensor, cov: Tensor) -> bool:
    """Whether a matrix is a factor of a covariance: by what both products make of a random vector.

    That takes d^2 operations instead of d^3, and another factor passes by an impossible chance.
    """
    if cholesky.shape != cov.shape or cholesky.dtype != torch.float64:
        return False
    probe = torch.randn(len(cov), generator=torch.Generator().manual_seed(0), dtype=cov.dtype)
    wanted = cov @ probe
    return bool((cholesky @ (cholesky.T @ probe) - wanted).norm() <= _MOST_APART * wanted.norm())


def _by(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "of no shape"
