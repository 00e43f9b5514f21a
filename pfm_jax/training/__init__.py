"""How heads are trained: cached features, sampling, the step, the loop, checkpoints."""
