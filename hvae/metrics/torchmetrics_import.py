"""What is used of torchmetrics, or a plain word on why it cannot be imported."""

try:
    from torchmetrics import Metric
    from torchmetrics.functional.image import structural_similarity_index_measure
except ModuleNotFoundError as error:
    if error.name != "torchvision":
        raise
    # torchmetrics imports torch-fidelity wherever it finds one, and that needs torchvision.
    raise ImportError(
        "torchmetrics cannot be imported, because torch-fidelity is installed without "
        "torchvision: run `pip uninstall torch-fidelity`, or install torchvision"
    ) from error

__all__ = ["Metric", "structural_similarity_index_measure"]
