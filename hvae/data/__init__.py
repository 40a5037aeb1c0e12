"""Real images in: sources named by one DATA word, exact-resume batches, sheets of images out."""

from hvae.data.conditions import complete_condition
from hvae.data.config import DataConfig
from hvae.data.grid import save_grid
from hvae.data.identity import Identity
from hvae.data.loader import Batch, Loader
from hvae.data.prefetch import Prefetcher
from hvae.data.sampler import image_order, permuted
from hvae.data.source import ImageSource, SupportsTake, open_source
from hvae.data.split import Split
from hvae.data.workers import worker_count

__all__ = [
    "Batch",
    "DataConfig",
    "Identity",
    "ImageSource",
    "Loader",
    "Prefetcher",
    "Split",
    "SupportsTake",
    "complete_condition",
    "image_order",
    "open_source",
    "permuted",
    "save_grid",
    "worker_count",
]
