"""The extractor of FID and KID: Inception's pooled features, from the published weights.

The input is scaled as in the implementation a protocol stands for: (x - 128) / 128 in TensorFlow's
graph, which `clean` and `legacy-tf` follow as clean-fid and torch-fidelity do, and 2 x / 255 - 1 in
pytorch-fid, which `legacy-pytorch` follows.

The published file is read once; a copy in safetensors goes to the cache folder and serves later
runs, so that nothing is unpickled again. The copy names the sha256 of the file it was made of and
that of its own tensors, and is refused if either is not as it should be. This finds damage; it
cannot find a forgery by someone who can write to the folder.
"""

from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.files import locked, replacing
from hvae.metrics.features.base import NetworkExtractor
from hvae.metrics.features.download import Progress, download
from hvae.metrics.features.inception_network import FEATURES, RESOLUTION, InceptionNetwork
from hvae.metrics.features.weights import (
    WeightsFile,
    cache_folder,
    check_keys,
    find,
    missing,
    read_state_dict,
    tensors_sha256,
)
from hvae.metrics.protocol import check_protocol

PROTOCOLS = ("clean", "legacy-pytorch", "legacy-tf")

INCEPTION = WeightsFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    num_bytes=95_628_359,
    other_names=("pt_inception-2015-12-05-6726825d.pth",),
)

# Counters that training would move and inference never reads; a file may hold them or not.
_COUNTER = "num_batches_tracked"


def open_inception(
    protocol: str = "clean",
    weights: Path | None = None,
    *,
    download_missing: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    file: WeightsFile = INCEPTION,
) -> NetworkExtractor:
    """Returns the FID extractor: 2048 features, "pool3", of images at 299 x 299.

    Args:
        protocol: one of `PROTOCOLS`.
        weights: the published file, its safetensors copy, or a folder that holds one. None:
            searched for, see `hvae.metrics.features.weights`.
        download_missing: fetch the file where it is missing.
        device: where the network runs.
        progress: called while downloading, with bytes received and expected.
        file: what was published.

    Raises:
        UserError: the weights are missing, damaged, or not those of this network.
    """
    check_protocol(protocol, PROTOCOLS, "inception")
    # Missing weights are told at once: a network takes a second to make.
    found = _read(file, weights, download_missing=download_missing, progress=progress)
    network = InceptionNetwork()
    _fill(network, file, *found)
    centre = 127.5 if protocol == "legacy-pytorch" else 128.0
    return NetworkExtractor(
        name="inception",
        dim=FEATURES,
        sha256=file.sha256,
        protocol=protocol,
        frechet_name="FID",
        kernel_name="KID",
        network=network,
        resolution=RESOLUTION,
        mean=(centre,) * 3,
        std=(centre,) * 3,
        device=torch.device(device),
    )


def load_weights(
    network: nn.Module,
    file: WeightsFile = INCEPTION,
    weights: Path | None = None,
    *,
    download_missing: bool = False,
    progress: Progress | None = None,
) -> None:
    """Loads the published weights, or the copy of them; arguments and errors as above."""
    found = _read(file, weights, download_missing=download_missing, progress=progress)
    _fill(network, file, *found)


def _read(
    file: WeightsFile,
    weights: Path | None,
    *,
    download_missing: bool,
    progress: Progress | None,
) -> tuple[Path, dict[str, Tensor]]:
    """Where the weights or their copy were found, and what is in them."""
    path = find((_copy_name(file), file.name, *file.other_names), weights)
    if path is None:
        if not download_missing:
            raise missing(file)
        path = download(file, progress)
    content = _read_copy(path, file) if _is_copy(path) else read_state_dict(path, file.sha256)
    return path, _without_counters(content)


def _fill(network: nn.Module, file: WeightsFile, path: Path, tensors: dict[str, Tensor]) -> None:
    """Puts tensors into a network, and a copy of what was published into the cache."""
    check_keys(path, tensors, _without_counters(network.state_dict()))
    network.load_state_dict(tensors, strict=False)  # counters alone are missing
    if not _is_copy(path):
        _write_copy(tensors, file)


def _is_copy(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _read_copy(path: Path, file: WeightsFile) -> dict[str, Tensor]:
    """The tensors of a copy, if it was made of the published file and has not changed since."""
    try:
        with safe_open(path, framework="pt") as content:
            header = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}; remove the file") from None
    if (origin := header.get("origin_sha256")) != file.sha256:
        raise UserError(
            f"{path}: not made of the published weights: wanted origin sha256 {file.sha256}, "
            f"got {origin}; remove the file"
        )
    wanted, got = header.get("tensors_sha256"), tensors_sha256(tensors)
    if got != wanted:
        raise UserError(
            f"{path}: changed since it was made: wanted tensors of sha256 {wanted}, got {got}; "
            "remove the file"
        )
    return tensors


def _write_copy(tensors: dict[str, Tensor], file: WeightsFile) -> None:
    """Writes the copy, unless one is there, another process writes it, or the folder refuses."""
    path = cache_folder() / _copy_name(file)
    header = {"origin_sha256": file.sha256, "tensors_sha256": tensors_sha256(tensors)}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                with replacing(path) as stream:
                    stream.write(save(tensors, header))


def _copy_name(file: WeightsFile) -> str:
    return Path(file.name).with_suffix(".safetensors").name


def _without_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
