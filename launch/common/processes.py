"""`--distributed`: several processes as one launch."""

import logging

import jax
from absl import flags

from pfm_jax.system import devices
from pfm_jax.types import InputError

DISTRIBUTED = flags.DEFINE_list(
    "distributed",
    [],
    "Joins several processes: 'auto' on a cluster that jax.distributed detects, else "
    "HOST:PORT,NUMBER,PROCESSES (address of process 0, index of this process, their count).",
)


def meet() -> None:
    """Joins the other processes of the launch, if any; only the first one logs.

    Raises:
        InputError: a malformed flag.
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
    if not devices.is_primary():
        logging.getLogger("pfm_jax").setLevel(logging.ERROR)
