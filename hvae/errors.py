"""Exceptions that carry an exit code, so that every entry point reports failures alike."""


class HvaeError(Exception):
    """Base of the errors a user can meet; `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(HvaeError, ValueError):
    """Wrong use: a bad configuration, a missing file, a run folder in use (exit code 2)."""

    exit_code = 2


class TrainingError(HvaeError, RuntimeError):
    """Training cannot go on, for instance after repeated non-finite steps (exit code 1)."""

    exit_code = 1


class StorageError(HvaeError, RuntimeError):
    """A disk is full or broken, and nothing can be saved (exit code 1)."""

    exit_code = 1


class WorkerLostError(HvaeError, RuntimeError):
    """A process that reads images was ended from outside, as a rule for lack of memory (1)."""

    exit_code = 1


class KernelsUnavailableError(HvaeError, ImportError):
    """`HVAE_KERNELS=require`, and the compiled kernels cannot be loaded (exit code 1)."""
