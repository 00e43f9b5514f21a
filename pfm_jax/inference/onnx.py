"""Export of a detector to ONNX, checked with ONNX Runtime before it is written (extra onnx).

jax2onnx converts the detector's program. What ONNX Runtime can't run is rewritten before, to the
same numbers: products of bfloat16 that sum in float32 become products of float32, in which they are
exact, and maxima over windows become maxima of shifted arrays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend import core

from pfm_jax.datasets.images import batches
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.inference.export import TOLERANCE, difference, manifest, outputs
from pfm_jax.system import files
from pfm_jax.types import Example, InputError

INPUT, OUTPUTS = "images", ("image_scores", "anomaly_maps")
ROUNDING = 2**-8
"""Greatest difference of maps with products of bfloat16, whose operands may round the other way."""
MANIFEST = "pfm_jax"  # key of the model's metadata


def write(
    detector: Detector, threshold: Threshold | None, examples: Sequence[Example], path: Path
) -> float:
    """Writes the model, once ONNX Runtime's CPU gave the detector's scores and maps with it.

    Scores agree to `export.TOLERANCE`, maps too or, with products of bfloat16, to `ROUNDING`.
    Returns the greatest difference. Raises InputError: the extra is not installed, or they don't
    agree; nothing is written then.
    """
    with files.checked(path) as part:
        files.write(part, convert(detector, threshold))
        return _check(detector, part, examples)


def convert(detector: Detector, threshold: Threshold | None) -> bytes:
    """ONNX model of a detector: uint8 RGB `[1, size, size, 3]` -> `OUTPUTS`, `[1]` and
    `[1, size, size]`. Its metadata holds what the manifest of an artefact does.

    Raises InputError: the extra is not installed.
    """
    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        remedy = "install the extra, pip install -e '.[onnx]'"
        raise InputError(f"{error.name} is not installed: {remedy}") from error

    def run(images: Array) -> tuple[Array, ...]:
        found = outputs(score_batch(detector, images))
        return tuple(found[name] for name in OUTPUTS)

    side = detector.config.data.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    # Traced here, for jax2onnx replaces Flax's layers by its own where it traces.
    program = jax.make_jaxpr(run)(images)
    model = to_onnx(
        lambda images: tuple(_evaluated(program, images)),
        [images],
        input_names=[INPUT],
        output_names=list(OUTPUTS),
    )
    model.metadata_props.add(key=MANIFEST, value=json.dumps(manifest(detector, threshold)))
    return bytes(model.SerializeToString())


def _evaluated(program: Any, *arguments: Any) -> list[Any]:
    """Evaluates a closed jaxpr, inlined and with `REWRITTEN` primitives."""
    jaxpr = program.jaxpr
    known: dict[Any, Any] = {}
    known.update(zip(jaxpr.constvars, program.consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def value(of: Any) -> Any:
        return of.val if isinstance(of, core.Literal) else known[of]

    for equation in jaxpr.eqns:
        values, own = [*map(value, equation.invars)], equation.params
        inner = own.get("jaxpr", own.get("call_jaxpr"))
        if isinstance(inner, core.ClosedJaxpr) and equation.primitive.name != "scan":
            found = _evaluated(inner, *values)
        else:
            bind = REWRITTEN.get(equation.primitive.name, equation.primitive.bind)
            found = bind(*values, **own)
            found = found if equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, found, strict=True))
    return [*map(value, jaxpr.outvars)]


def _product(first: Array, second: Array, **how: Any) -> Array:
    if how["preferred_element_type"] == jnp.float32:
        first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    return lax.dot_general_p.bind(first, second, **how)


def _window_maximum(
    x: Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **_: Any,
) -> Array:
    for axis, (size, stride, ends) in enumerate(
        zip(window_dimensions, window_strides, padding, strict=True)
    ):
        if size > 1:
            widths = [(*ends, 0) if at == axis else (0, 0, 0) for at in range(x.ndim)]
            padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), widths)
            last = (padded.shape[axis] - size) // stride * stride
            parts = [lax.slice_in_dim(padded, k, k + last + 1, stride, axis) for k in range(size)]
            x = parts[0]
            for part in parts[1:]:
                x = lax.max(x, part)
    return x


REWRITTEN: dict[str, Callable[..., Array]] = {
    "dot_general": _product,
    "reduce_window_max": _window_maximum,
}


def _check(detector: Detector, path: Path, examples: Sequence[Example]) -> float:
    """Greatest difference from the detector. Raises InputError: it is above what is allowed."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    rounded = detector.spec.head_precision == "bfloat16"
    most = {"image_scores": TOLERANCE, "anomaly_maps": ROUNDING if rounded else TOLERANCE}
    size, worst = detector.config.data.image_size, 0.0
    for index, (images, _) in enumerate(batches(examples, size, 1)):
        expected = outputs(score_batch(detector, images))
        found = dict(zip(OUTPUTS, session.run(OUTPUTS, {INPUT: images}), strict=True))
        where = examples[index].path
        worst = max(worst, difference(expected, found, most, "ONNX Runtime", where))
    return worst
