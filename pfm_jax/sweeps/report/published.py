"""Published results in percent; row Capsule of Table III is absent from the transcribed copy."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """Published table of one metric by category and method."""

    number: str  # Roman numeral
    metric: str  # one of `metrics.PAPER_METRICS`
    methods: tuple[str, ...]  # the last is the paper's own
    rows: dict[str, tuple[float | None, ...]]  # percent by category; None: no published value


def _rows(text: str) -> dict[str, tuple[float | None, ...]]:
    lines = (line.split() for line in text.strip().splitlines())
    return {name: tuple(None if v == "-" else float(v) for v in values) for name, *values in lines}


AUROC_METHODS = ("AE_SSIM", "CAVGA", "AnoGan", "VAE", "Patch SVDD", "MKD", "SPADE", "MB-PFM")
IMAGE_AUROC = Published(
    "III",
    "image_auroc",
    AUROC_METHODS,
    _rows("""
        carpet      67 73 49 67  92.9 79.3 92.8 100
        grid        69 75 51 83  94.6 78.1 47.3 98.0
        leather     46 71 52 71  90.9 95.1 95.4 100
        tile        52 70 51 81  97.8 91.6 96.5 99.6
        wood        83 85 68 89  96.5 94.3 95.8 99.5
        bottle      88 89 69 86  98.6 99.4 97.2 100
        cable       61 63 53 56  90.3 89.2 84.8 98.8
        capsule     -  -  -  -   -    -    -    -
        hazelnut    54 84 50 74  92.0 98.4 88.1 100
        metal_nut   54 67 50 78  94.0 73.6 71.0 100
        pill        60 88 68 80  86.1 82.7 80.1 96.5
        screw       51 77 35 71  81.3 83.3 66.7 91.8
        toothbrush  74 91 57 89 100   92.2 88.9 88.6
        transistor  52 73 67 70  91.5 85.6 90.3 97.8
        zipper      80 87 59 67  97.9 93.2 96.6 97.4
        average     63 78 55 77  92.1 87.7 85.5 97.5
    """),
)
PIXEL_AUROC = Published(
    "IV",
    "pixel_auroc",
    AUROC_METHODS,
    _rows("""
        carpet      87 -  54   73.5 92.6 95.6 97.5 99.2
        grid        94 -  58   96.1 96.2 91.8 93.7 98.8
        leather     78 -  64   92.5 97.4 98.1 97.6 99.4
        tile        59 -  50   65.4 91.4 82.8 87.4 96.2
        wood        73 -  62   83.8 90.8 84.8 88.5 95.6
        bottle      93 -  86   92.2 98.1 96.3 98.4 98.4
        cable       82 -  78   91.0 96.8 82.4 97.2 96.7
        capsule     94 -  84   91.7 95.8 95.9 99.0 98.3
        hazelnut    97 -  87   97.6 97.5 94.6 99.1 99.1
        metal_nut   89 -  76   90.7 98.0 86.4 98.1 97.2
        pill        91 -  87   93.0 95.1 89.6 96.5 97.2
        screw       96 -  80   94.5 95.7 96.0 98.9 98.7
        toothbrush  92 -  90   98.5 98.1 96.1 97.9 98.6
        transistor  90 -  80   91.9 97.0 76.5 94.1 87.8
        zipper      88 -  78   86.9 95.1 93.9 96.5 98.2
        average     87 89 74.3 89.3 95.7 90.7 96.5 97.3
    """),
)
PRO = Published(
    "V",
    "pro_auc",
    ("AE_SSIM", "CNN_Dict", "AnoGan", "VAE", "ST", "SPADE", "MB-PFM"),
    _rows("""
        carpet      64.7 46.9 20.4 50.1 87.9 94.7 96.9
        grid        84.9 18.3 22.6 22.4 95.2 86.7 96.0
        leather     56.1 64.1 37.8 63.5 94.5 97.2 98.8
        tile        17.5 79.7 17.7 87.0 94.6 75.9 88.7
        wood        60.5 62.1 38.6 62.8 91.1 87.4 92.6
        bottle      83.4 74.2 62.0 89.7 93.1 95.5 95.4
        cable       47.8 55.8 38.3 65.4 81.8 90.9 94.2
        capsule     86.0 30.6 30.6 52.6 96.8 93.7 91.7
        hazelnut    91.6 84.4 69.8 87.8 96.5 95.4 96.7
        metal_nut   60.3 35.8 32.0 57.6 94.2 94.4 94.6
        pill        83.0 46.0 77.6 76.9 96.1 94.6 96.1
        screw       88.7 27.7 46.6 55.9 94.2 96.0 93.4
        toothbrush  78.4 15.1 74.9 69.3 93.3 93.5 90.7
        transistor  72.5 62.8 54.9 62.6 66.6 87.4 74.9
        zipper      66.5 70.3 46.7 54.9 95.1 92.6 94.8
        average     69.4 51.5 44.3 63.9 91.4 91.7 93.0
    """),
)
TABLES = (IMAGE_AUROC, PIXEL_AUROC, PRO)

IMAGES_PER_SECOND = {"Patch SVDD": 0.18, "SPADE": 0.06, "MKD": 11.5}
IMAGES_PER_SECOND |= {"PFM": 23.5, "B-PFM": 23.3, "MB-PFM": 14.5}
"""Table VI: images per second on an NVIDIA GTX 1660."""

ABLATION = {
    1: (93.5, 95.1, 84.7),
    2: (95.1, 95.9, 86.8),
    3: (93.6, 94.8, 90.0),
    4: (82.8, 90.8, 82.3),
    5: (97.2, 96.8, 91.6),
    6: (93.1, 95.1, 90.7),
    7: (96.7, 97.0, 91.1),
    8: (97.4, 97.0, 92.5),
    9: (58.1, 50.8, 18.0),
    10: (97.0, 97.2, 93.0),
    11: (97.5, 97.3, 93.0),
    12: (94.2, 94.7, 86.9),
}
"""Table VII: case -> image AUROC, pixel AUROC, PRO; means over the 15 MVTec AD categories."""
