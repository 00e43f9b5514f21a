"""`python -m launch.benchmark`: speed compared with PyTorch, as medians of interleaved runs."""
