"""MVTec AD (Bergmann et al., 2019) and data sets in its layout.

`data_dir` is the folder of the categories, or the published archive as downloaded
(`mvtec_anomaly_detection.tar.xz`, or that of one category), which is unpacked once into the cache.
Masks are required. See `folder` for the layout, and `tfds_builder` for a builder of TFDS.
"""

from __future__ import annotations

from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.folder import categories
from pfm_jax.datasets.folder import load_with_masks as load

__all__ = ["categories", "load", "locate"]
