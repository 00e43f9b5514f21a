"""The paper's equations: features in; heads, losses, anomaly maps and scores out.

Pure functions over pytrees, without I/O. `features` (networks to unit vectors), `layers` (1x1
convolution, BatchNorm), `heads` (MNN and RMNN, loss, residual), `folded` (the same for inference),
`tiles` (large images), `nearest` (neighbours and coresets), `patches` (a memory and distances to
it), `scoring` (residuals to scores), `problem` (static data of training).
"""

from pfm_jax.model.heads import Head, Heads
from pfm_jax.model.problem import Extent, Problem, make_extent, mapping_problem
from pfm_jax.model.scoring import ScoringSpec, scoring_spec

__all__ = [
    "Extent",
    "Head",
    "Heads",
    "Problem",
    "ScoringSpec",
    "make_extent",
    "mapping_problem",
    "scoring_spec",
]
