"""PFM in PyTorch: reference of the parity tests and of the benchmark."""
