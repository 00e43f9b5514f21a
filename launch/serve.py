"""Serves a detector over HTTP (extra serve); stops cleanly on Ctrl-C or SIGTERM.

    python -m launch.serve --artifact=screw.pfm
    curl --data-binary @image.png 'http://127.0.0.1:8000/score?map=none'

In a browser, open http://127.0.0.1:8000/ and drop an image on the page. Further endpoints: /health
and /metrics.
"""

from absl import flags

from pfm_jax.types import InputError

from .common import cli, detector_flags

HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all networks.")
PORT = flags.DEFINE_integer("port", 8000, "TCP port.", lower_bound=1, upper_bound=65535)
MEGABYTES = flags.DEFINE_float("max_megabytes", 32, "Largest request, in MiB.", lower_bound=0)
MEGAPIXELS = flags.DEFINE_float("max_megapixels", 50, "Largest image, in MP.", lower_bound=0)
flags.adopt_module_key_flags(detector_flags)


def main() -> None:
    try:
        import uvicorn

        from pfm_jax.serving import service
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install 'pfm_jax[serve]'") from error
    scorer = detector_flags.scorer()
    threshold = detector_flags.threshold(scorer)
    print(threshold or "no threshold")
    limits = service.Limits(MEGABYTES.value, MEGAPIXELS.value)
    print(f"up to {service.at_once(limits)} images of {limits.megapixels:g} MP at once")
    app = service.app(scorer, threshold, limits)
    uvicorn.run(
        app, host=HOST.value, port=PORT.value, access_log=False, timeout_graceful_shutdown=10
    )


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
