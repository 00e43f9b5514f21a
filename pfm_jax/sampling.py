"""Which positions a step sees.

What is drawn follows from the key and the step alone: a resumed run sees what an undisturbed one
would have seen, and a cache on disk gives what a cache on the device gives. Which of the candidates
are kept follows from the state of the heads.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax import mapping
from pfm_jax.cache import FeatureCache
from pfm_jax.config import MappingConfig, TrainConfig
from pfm_jax.mapping import MappingHeads
from pfm_jax.types import LEVELS, Batch, FeaturePair, Params

Sizes = tuple[tuple[str, int], ...]
"""Each level and the rows that a data set has there, sorted."""


def sizes(cache: FeatureCache) -> Sizes:
    """How many rows each data set of a cache has at each level."""
    return tuple(
        sorted((k, rows.shape[0] // cache.num_datasets) for k, rows in cache.rows.source.items())
    )


def draw(
    key: Array, step: Array, dataset: Array, sizes: Sizes, num_images: int, config: TrainConfig
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The rows `[P]` of each level that a step sees, and their masks `[P]`.

    Positions are drawn uniformly with replacement, those of a level whichever others there are, the
    candidates of `keep_hardest` after those that are sure to be seen. Images: every image once an
    epoch, in a new order each epoch, the last batch padded.

    Args:
        key: is folded with what the draw depends on.
        step: the step's number.
        dataset: which one of the cache's.
        sizes: of each of them.
        num_images: that the rows belong to.
        config: what to draw.
    """
    rows, masks = {}, {}
    if config.sampling == "positions":
        key = jax.random.fold_in(key, step)
        for level, size in sizes:
            own, shape = (
                jax.random.fold_in(key, LEVELS.index(level)),
                (positions_drawn(level, config),),
            )
            rows[level] = jax.random.randint(own, shape, 0, size)
            rows[level] += dataset * size
            masks[level] = jnp.ones(shape)
        return rows, masks
    batches = -(-num_images // config.batch_size)
    order = jax.random.permutation(jax.random.fold_in(key, step // batches), num_images)
    slots = (step % batches) * config.batch_size + jnp.arange(config.batch_size)
    images, real = order[slots % num_images], (slots < num_images).astype(jnp.float32)
    for level, size in sizes:
        positions = size // num_images
        rows[level] = (images[:, None] * positions + jnp.arange(positions)[None]).reshape(-1)
        rows[level] += dataset * size
        masks[level] = jnp.repeat(real, positions)
    return rows, masks


def pick(features: FeaturePair, rows: dict[str, Array]) -> FeaturePair:
    """The chosen rows of every level, of NumPy or JAX arrays."""
    return FeaturePair(
        {level: features.source[level][index] for level, index in rows.items()},
        {level: features.target[level][index] for level, index in rows.items()},
    )


def keep_hardest(
    heads: dict[str, MappingHeads],
    params: Params,
    batch_stats: Params,
    drawn: Batch,
    mapping_config: MappingConfig,
    config: TrainConfig,
) -> Batch:
    """Of what `draw` gave, half a batch as it is and, of the candidates, the worst mapped half.

    The score of an image is that of its worst position, so those are seen more often. (Candidates
    are judged with the running statistics of BatchNorm, as when scoring.)
    """
    rows, masks = {}, {}
    for level, head in heads.items():
        half = config.positions[level] // 2
        sure = config.positions[level] - half
        candidates = jax.tree.map(lambda x, sure=sure: x[sure:], drawn.features)
        inputs, targets = mapping.inputs_and_targets(candidates, level, mapping_config.directions)
        variables = {"params": params[level], "batch_stats": batch_stats[level]}
        predictions: dict[str, Array] = head.apply(variables, inputs)  # type: ignore[assignment]
        distances = mapping.residuals(predictions, targets, mapping_config)
        _, worst = lax.top_k(sum(distances.values(), jnp.float32(0)), half)
        rows[level] = jnp.concatenate([jnp.arange(sure), sure + worst])
        masks[level] = drawn.mask[level][rows[level]]
    return Batch(pick(drawn.features, rows), masks)


@functools.partial(jax.jit, static_argnames=("steps", "sizes", "num_images", "config"))
def _draw_many(
    keys: Array,
    first: Array,
    datasets: Array,
    steps: int,
    sizes: Sizes,
    num_images: int,
    config: TrainConfig,
) -> tuple[dict[str, Array], dict[str, Array]]:
    def one_run(key: Array, dataset: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        return jax.vmap(lambda step: draw(key, step, dataset, sizes, num_images, config))(
            first + jnp.arange(steps)
        )

    return jax.vmap(one_run)(keys, datasets)


def gather(
    cache: FeatureCache,
    keys: Array,
    first: Array,
    datasets: Array,
    steps: int,
    config: TrainConfig,
) -> Batch:
    """What runs `[G]` see of a cache on host or disk from step `first` on, `[G, steps, P, ...]`."""
    rows, masks = _draw_many(keys, first, datasets, steps, sizes(cache), cache.num_images, config)
    return Batch(pick(cache.rows, jax.tree.map(np.asarray, rows)), masks)


def step_bytes(cache: FeatureCache, config: TrainConfig) -> int:
    """What one step of one run sees of a cache."""
    rows = {k: _rows_a_step(size // cache.num_images, k, config) for k, size in sizes(cache)}
    pairs = ((cache.rows.source[k], cache.rows.target[k], n) for k, n in rows.items())
    return sum(n * (s.shape[-1] + t.shape[-1]) * s.dtype.itemsize for s, t, n in pairs)


def _rows_a_step(positions: int, level: str, config: TrainConfig) -> int:
    if config.sampling == "positions":
        return positions_drawn(level, config)
    return config.batch_size * positions


def positions_drawn(level: str, config: TrainConfig) -> int:
    """How many positions a step draws: those of its batch, or half of those and candidates."""
    wanted = config.positions[level]
    return wanted - wanted // 2 + config.candidates * wanted if config.candidates else wanted
