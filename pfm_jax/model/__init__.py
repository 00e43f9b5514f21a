"""The paper's equations: features, heads, tiles, scores."""
