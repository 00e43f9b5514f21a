"""`python -m launch.benchmark`: speed beside PyTorch, as medians of interleaved turns."""
