"""PFM in PyTorch, plain and honest: what parity is tested against and speed is measured beside."""
