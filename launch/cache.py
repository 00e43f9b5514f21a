"""Shows the place and the size of the cache, and with --clear empties it.

    python -m launch.cache --clear

The cache is $PFM_JAX_CACHE, or pfm_jax below $XDG_CACHE_HOME or ~/.cache. What is removed is made
or downloaded again when a launch needs it. Weights, and whatever else lies there, are kept.
"""

from absl import flags

from pfm_jax.system import cache_folder, files

from .common import cli

CLEAR = flags.DEFINE_bool("clear", False, "Remove all that can be made or downloaded again.")


def main() -> None:
    sizes = cache_folder.sizes()
    print(files.cache_dir())
    for name, size in (*sizes.items(), ("total", sum(sizes.values()))):
        print(f"{name:20} {size / 1e6:12,.1f} MB")
    if CLEAR.value:
        print(f"freed {cache_folder.clear() / 1e6:,.1f} MB")
        if kept := ", ".join(cache_folder.sizes()):
            print(f"kept {kept}")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
