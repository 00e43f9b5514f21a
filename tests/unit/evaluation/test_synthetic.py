"""Made-up defects: visible, where they are said to be, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from pfm_jax.evaluation import synthetic

SIDE = 128


def surface(seed: int, channels: int = 3) -> np.ndarray:
    """A rough surface with a bright bar, uint8 `[SIDE, SIDE, 3]`."""
    pixels = np.random.default_rng(seed).integers(90, 150, (SIDE, SIDE, channels), np.uint8)
    pixels[48:80] += 80
    return np.broadcast_to(pixels, (SIDE, SIDE, 3)).copy()


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_a_defect_is_where_the_mask_is(kind: str, channels: int) -> None:
    for seed in range(8):
        image, donor = surface(seed, channels), surface(seed + 100, channels)
        before = image.copy()
        changed, mask = synthetic.make(kind, image, donor, np.random.default_rng(seed))
        difference = np.abs(changed.astype(int) - image).max(-1)
        assert (changed.dtype, changed.shape) == (np.uint8, image.shape)
        assert mask.any() and mask.mean() < 0.35
        assert (difference[mask] >= synthetic.VISIBLE_DIFFERENCE).all()
        assert (difference[~mask] < synthetic.VISIBLE_DIFFERENCE).all()
        assert (difference > 0).mean() < 0.35, "the rest of the image is as it was"
        np.testing.assert_array_equal(image, before)
        if channels == 1:
            assert changed.std(-1).max() == 0, "grey stays grey"


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_the_same_seed_makes_the_same_defect(kind: str) -> None:
    def made(seed: int) -> np.ndarray:
        return synthetic.make(kind, surface(0), surface(1), np.random.default_rng(seed))[0]

    np.testing.assert_array_equal(made(0), made(0))
    assert (made(0) != made(1)).any()


def test_a_plain_image_has_nothing_to_blur() -> None:
    plain = np.full((SIDE, SIDE, 3), 100, np.uint8)
    changed, mask = synthetic.make("blur", plain, plain, np.random.default_rng(0))
    assert not mask.any()
    np.testing.assert_array_equal(changed, plain)


def test_defects_lie_on_the_part() -> None:
    """A part in the middle of a plain table: the defects' centres are on it or at its edge."""
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    image[40:88, 40:88] = surface(0)[:48, :48]
    places = []
    for seed in range(20):
        _, mask = synthetic.make("colour", image, image, np.random.default_rng(seed))
        places.append(np.argwhere(mask).mean(0))
    inside = [(np.array(place) > 30).all() and (np.array(place) < 98).all() for place in places]
    assert np.mean(inside) >= 0.9


@pytest.mark.parametrize("kind", ["scratch", "colour"])
def test_defects_are_faint_to_plain_and_small_to_large(kind: str) -> None:
    plain = np.full((256, 192, 3), 120, np.uint8)
    peaks, areas = [], []
    for seed in range(40):
        changed, mask = synthetic.make(kind, plain, plain, np.random.default_rng(seed))
        difference = np.abs(changed.astype(int) - plain).max(-1)
        peaks.append(difference.max())
        areas.append(mask.mean())
    assert (
        min(peaks) < 2 * synthetic.VISIBLE_DIFFERENCE
        and max(peaks) > 6 * synthetic.VISIBLE_DIFFERENCE
    )
    assert max(areas) > 10 * min(areas)
