"""PFM in PyTorch, plain and honest: the yardstick of parity tests and of speed."""
