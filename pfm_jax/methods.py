"""Settings of the methods that others would use instead of mapping, a class each.

`Config.baseline` holds one of them. Each sees one frozen network, `networks.source`. Fields of
whole numbers are positive, and fractions above 0 and up to 1.
"""

import dataclasses

from pfm_jax.types import LEVELS


@dataclasses.dataclass(frozen=True, slots=True)
class Spade:
    """Nearest images, then nearest positions in them (Cohen and Hoshen, 2020).

    Attributes:
        stages: whose features are concatenated, finest first; the map has the grid of the first, on
            which coarser ones are repeated.
        pooled: the stage whose mean finds the nearest images.
        neighbours: how many are found, at most: K in their paper.
    """

    method: str = dataclasses.field(default="spade", init=False)
    stages: tuple[str, ...] = LEVELS
    pooled: str = LEVELS[-1]
    neighbours: int = 50


@dataclasses.dataclass(frozen=True, slots=True)
class PatchCore:
    """Nearest neighbours in a coreset of positions (Roth et al., 2022).

    Attributes:
        stages: whose features are concatenated, finest first; the map has the grid of the first, to
            which coarser ones are interpolated.
        channels: channels per stage, after averaging.
        coreset: fraction of the positions that is kept.
        most_positions: a coreset is chosen of at most so many, drawn at random.
        projection: dimensions of the random projection that the coreset is chosen in.
        neighbours: of the nearest kept position, by which an image's score is weighted: b in their
            paper.
        recall: of the nearest neighbour; below 1, `jax.lax.approx_min_k` searches for it.
    """

    method: str = dataclasses.field(default="patchcore", init=False)
    stages: tuple[str, ...] = LEVELS[1:]
    channels: int = 512
    coreset: float = 0.01
    most_positions: int = 250_000
    projection: int = 128
    neighbours: int = 9
    recall: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Padim:
    """A Gaussian of the features at each position (Defard et al., 2021).

    Attributes:
        stages: whose features are concatenated, finest first; the map has the grid of the first, on
            which coarser ones are repeated.
        channels: drawn at random of all of them.
        ridge: added to the diagonal of the covariances.
    """

    method: str = dataclasses.field(default="padim", init=False)
    stages: tuple[str, ...] = LEVELS
    channels: int = 100
    ridge: float = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class CnnDict:
    """Distance to a dictionary of patches (Napoletano et al., 2018).

    Attributes:
        stages: the one whose mean over a patch is its feature.
        patch: side of a patch, in pixels; the network sees each by itself.
        stride: from one patch to the next, in pixels; divides the image's side.
        variance: fraction that the principal components keep.
        words: of the dictionary, by k-means.
        neighbours: nearest words whose mean distance scores a patch.
    """

    method: str = dataclasses.field(default="cnn_dict", init=False)
    stages: tuple[str, ...] = LEVELS[-1:]
    patch: int = 16
    stride: int = 8
    variance: float = 0.95
    words: int = 500
    neighbours: int = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Stfpm:
    """A student ResNet18 that learns the teacher's features (Wang et al., 2021).

    Attributes:
        stages: of the teacher, a ResNet18 or ResNet34, that are learnt.
    """

    method: str = dataclasses.field(default="stfpm", init=False)
    stages: tuple[str, ...] = LEVELS


@dataclasses.dataclass(frozen=True, slots=True)
class Uninformed:
    """Students that regress a teacher's features, "ST" (Bergmann et al., 2020).

    Attributes:
        stages: the one of the teacher, a ResNet18 or ResNet34, that is regressed.
        students: how many there are, each a ResNet18.
    """

    method: str = dataclasses.field(default="uninformed", init=False)
    stages: tuple[str, ...] = LEVELS[1:2]
    students: int = 3


@dataclasses.dataclass(frozen=True, slots=True)
class AeSsim:
    """An autoencoder trained by structural similarity (Bergmann et al., 2018).

    Attributes:
        stages: none; it sees the images alone.
        latent: numbers that an image is encoded by.
    """

    method: str = dataclasses.field(default="ae_ssim", init=False)
    stages: tuple[str, ...] = ()
    latent: int = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Vae:
    """A variational autoencoder (Kingma and Welling, 2014); attributes as of `AeSsim`."""

    method: str = dataclasses.field(default="vae", init=False)
    stages: tuple[str, ...] = ()
    latent: int = 100


Trained = Stfpm | Uninformed | AeSsim | Vae
"""Methods that are trained on whole images, by `Config.train`; the others are fitted at once."""

Baseline = Spade | PatchCore | Padim | CnnDict | Trained

IMAGES = "images"
"""The one level of methods that are trained on whole images."""

KINDS: dict[str, type[Baseline]] = {
    "spade": Spade,
    "patchcore": PatchCore,
    "padim": Padim,
    "cnn_dict": CnnDict,
    "stfpm": Stfpm,
    "uninformed": Uninformed,
    "ae_ssim": AeSsim,
    "vae": Vae,
}
"""Name of a method, which is also a field of its settings -> their class."""
