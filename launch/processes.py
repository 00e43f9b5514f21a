"""The flag that makes several processes one launch."""

import logging

import jax
from absl import flags

from pfm_jax import sharding
from pfm_jax.types import InputError

DISTRIBUTED = flags.DEFINE_list(
    "distributed",
    [],
    "One of several processes: 'auto' on a cluster that jax.distributed knows, else HOST:PORT of "
    "the first process, this one's number, how many there are.",
)


def meet() -> None:
    """Joins the other processes, if there are to be any; the first one speaks for all.

    Raises:
        InputError: the flag is neither of the two things that it may be.
    """
    if not DISTRIBUTED.value:
        return
    if DISTRIBUTED.value == ["auto"]:
        jax.distributed.initialize()
    else:
        address, *numbers = DISTRIBUTED.value
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            raise InputError("distributed: must be 'auto' or HOST:PORT,NUMBER,PROCESSES")
        number, processes = map(int, numbers)
        jax.distributed.initialize(address, processes, number)
    if not sharding.is_first():
        logging.getLogger("pfm_jax").setLevel(logging.ERROR)
