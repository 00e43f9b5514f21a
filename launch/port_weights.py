"""Converts a published checkpoint to a verified .safetensors file of the weights in use.

    python -m launch.port_weights --arch=resnet34 --input=resnet34-b627a593.pth \\
        --output=W/resnet34.safetensors
"""

from pathlib import Path

from absl import flags

from pfm_jax.backbones import NAMES, weights

from .common import cli, paths

ARCH = flags.DEFINE_enum("arch", None, NAMES, "Network of the checkpoint.", required=True)
INPUT = paths.define("input", None, "A .pth, .pt or .safetensors file.", required=True)
OUTPUT = paths.define("output", None, "File to write.", required=True)


def main() -> None:
    count = weights.port(ARCH.value, Path(INPUT.value), Path(OUTPUT.value))
    print(f"{OUTPUT.value}: {count} tensors of {ARCH.value}, verified")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
