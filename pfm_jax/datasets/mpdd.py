"""MPDD (Jezek et al., 2021): six categories of metal parts, in MVTec AD's layout.

    ROOT/bracket_black/train/good/*.png
    ROOT/bracket_black/test/good/*.png
    ROOT/bracket_black/test/DEFECT/NAME.png
    ROOT/bracket_black/ground_truth/DEFECT/NAME_mask.png

Protocol: that of MVTec AD, one model a category. From https://github.com/stepanje/MPDD
(CC BY-NC-SA 4.0).
"""

from pfm_jax.datasets.folder import categories, locate
from pfm_jax.datasets.folder import load_with_masks as load

__all__ = ["categories", "load", "locate"]
