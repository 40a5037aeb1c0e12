"""The extractor of FD-DINOv2: the class token of a DINOv2 transformer, from a local folder.

Oquab et al., "DINOv2" (arXiv 2304.07193); as a metric in Stein et al., "Exposing flaws of
generative model evaluation metrics" (arXiv 2306.04675): ViT-L/14 at 224 px, 1024 features. The
folder is the one that the Hugging Face hub calls `facebook/dinov2-large`; nothing is downloaded.
"""

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics.features.base import NetworkExtractor
from hvae.metrics.features.weights import cache_folder, file_sha256, find
from hvae.metrics.protocol import check_protocol

PROTOCOLS = ("clean",)

FOLDER = "dinov2-large"
URL = "https://huggingface.co/facebook/dinov2-large"
FILES = ("config.json", "model.safetensors")

_RESOLUTION = 224
_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_LARGE_DIM = 1024


def open_dinov2(
    protocol: str = "clean", weights: Path | None = None, *, device: torch.device | str = "cpu"
) -> NetworkExtractor:
    """Returns the extractor of a DINOv2 model: its normalised class token.

    `sha256` covers both files of the folder. A model of another size than ViT-L carries its number
    of features in the names of its scores ("FD-DINOv2-768").

    Args:
        protocol: "clean", the only one these scores are defined with.
        weights: a folder with `config.json` and `model.safetensors`, or one that holds such a
            folder as `dinov2-large`. None: searched for, see `hvae.metrics.features.weights`.
        device: where the network runs.

    Raises:
        UserError: the folder or transformers is missing, or the tensors do not fit the
            configuration.
    """
    check_protocol(protocol, PROTOCOLS, "dinov2")
    folder = _find_folder(weights)
    sha256 = hashlib.sha256("".join(file_sha256(folder / name) for name in FILES).encode())
    network = _ClassToken(_load(folder))
    size = "" if network.dim == _LARGE_DIM else f"-{network.dim}"
    return NetworkExtractor(
        name="dinov2",
        dim=network.dim,
        sha256=sha256.hexdigest(),
        protocol=protocol,
        frechet_name=f"FD-DINOv2{size}",
        kernel_name=f"KD-DINOv2{size}",
        network=network,
        resolution=_RESOLUTION,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        device=torch.device(device),
    )


class _ClassToken(nn.Module):
    """A transformer of which only the class token is kept, after the last layer norm."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.dim: int = model.config.hidden_size

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, dim) of (N, 3, 224, 224)."""
        tokens: Tensor = self.model(pixel_values=x).last_hidden_state
        return tokens[:, 0]


def _find_folder(given: Path | None) -> Path:
    folder = given if given is not None and _complete(given) else find((FOLDER,), given)
    if folder is None:
        raise UserError(
            f"the DINOv2 model is missing: get {' and '.join(FILES)} from {URL} and put them into "
            f"{cache_folder() / FOLDER}"
        )
    if not _complete(folder):
        raise UserError(f"{folder}: wanted a folder with {' and '.join(FILES)}")
    return folder


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _load(folder: Path) -> Any:
    """The model, every tensor of which was in the file; transformers fills gaps with noise."""
    try:
        transformers = importlib.import_module("transformers")
        model_class = transformers.Dinov2Model
    except (ImportError, AttributeError) as error:
        raise UserError(
            f'dinov2 needs transformers ({error}): pip install "hvae[dinov2]"'
        ) from None
    try:
        with _quiet(transformers.utils.logging):
            model, report = model_class.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except Exception as error:  # whatever a damaged file or foreign configuration raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: cannot be read as a DINOv2 model: {reason}") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[what])):
            raise UserError(
                f"{folder}: not a whole DINOv2 model: {len(names)} {what.replace('_', ' ')} "
                f"({', '.join(names[:3])})"
            )
    return model.float()


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """No progress bars and no warnings of transformers; the reports they hold are checked."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
