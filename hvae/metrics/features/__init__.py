"""Feature extractors: networks whose view of images Frechet and kernel distances compare."""

from hvae.metrics.features.base import CHUNK, Extractor, NetworkExtractor, in_chunks
from hvae.metrics.features.registry import NAMES, open_extractor

__all__ = ["CHUNK", "NAMES", "Extractor", "NetworkExtractor", "in_chunks", "open_extractor"]
