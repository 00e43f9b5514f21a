"""Pre-trained feature mapping: what a frozen network sees, predicted from what another sees.

    images -> two frozen backbones -> three levels of unit vectors (cached once)
           -> bidirectional mapping heads (the only thing trained) -> anomaly maps -> metrics

One way, a module a noun: `types`, `config`, `files`, `backbones`, `torch_file`, `weight_file`,
`pretrained`, `datasets`, `features`, `cache`, `layers`, `mapping`, `sampling`, `train`, `loop`,
`scoring`, `checkpoint`, `metrics`, `report`, `evaluate`, `group`, `run`. Each imports only from
those before it.

After Wan, Gao, Li and Wen, "Unsupervised Image Anomaly Detection and Segmentation Based on
Pre-trained Feature Mapping" (2022); equations and tables are cited by their numbers there.
"""

from pfm_jax.config import Config
from pfm_jax.types import InputError

__all__ = ["Config", "InputError"]
