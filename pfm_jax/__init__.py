"""Pre-trained feature mapping: what a frozen network sees, predicted from what another sees.

    images -> two frozen backbones -> three levels of unit vectors (cached once)
           -> bidirectional mapping heads (the only thing trained) -> anomaly maps -> metrics

One way, a module a noun: `types`, `config`, `sharding`, `files`, `interrupts`, `array_file`,
`calibration`, `backbones`, `torch_file`, `weight_file`, `pretrained`, `images`, `anomalies`,
`datasets`, `features`, `memory`, `tiles`, `cache`, `layers`, `mapping`, `sampling`, `train`,
`loop`, `scoring`, `standard`, `checkpoint`, `metrics`, `intervals`, `report`, `gallery`, `history`,
`record`, `evaluate`, `group`, `run`, `proxy`. What comes of a run: `scorer`, `detector`, `predict`,
`artifact`, `export`, `serve`. Many runs and what they show: `plan`, `sweep`, `engines`, `results`,
`published`, `tables`, `plots`, `claims`, `page`, `tensorboard`. Each imports only from those before
it.

After Wan, Gao, Li and Wen, "Unsupervised Image Anomaly Detection and Segmentation Based on
Pre-trained Feature Mapping" (2022); equations and tables are cited by their numbers there.
"""

from typing import TYPE_CHECKING, Any

from pfm_jax.config import Config
from pfm_jax.types import InputError

if TYPE_CHECKING:
    from pfm_jax.inference.detector import Detector

__all__ = ["Config", "Detector", "InputError"]


def __getattr__(name: str) -> Any:
    """`Detector`, and all that trains one, is imported when it is asked for."""
    if name == "Detector":
        from pfm_jax.inference.detector import Detector

        return Detector
    raise AttributeError(name)
