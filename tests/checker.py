"""The type checker of pfm_jax.model's annotations in tests: beartype, with what JAX and it need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, FrozenDict, beartype

from pfm_jax.types import Pair

# beartype knows no generic NamedTuple.
CONFIG = BeartypeConf(hint_overrides=FrozenDict({Pair: tuple}))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments and result checked.

    Fields of dataclasses are not: JAX builds pytrees with all sorts of leaves.
    """
    return function if function.__name__ == "__init__" else beartype(conf=CONFIG)(function)
