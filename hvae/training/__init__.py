"""Training: `fit` takes a configuration to a scored run."""

from hvae.training.config import Config, EvalConfig, TrainConfig
from hvae.training.config_file import load_config
from hvae.training.loop import fit
from hvae.training.run import FitResult

__all__ = ["Config", "EvalConfig", "FitResult", "TrainConfig", "fit", "load_config"]
