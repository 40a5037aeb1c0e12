"""Benchmarks of the kernels. No ratio is reported before the op has passed its checks."""
