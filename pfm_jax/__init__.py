"""Pre-trained feature mapping: what a frozen network sees, predicted from what another sees.

    images -> two frozen backbones -> three levels of unit vectors (cached once)
           -> bidirectional mapping heads (the only thing trained) -> anomaly maps -> metrics

One way, a module a noun: `types`, `config`, `files`, `backbones`, `torch_file`, `weight_file`,
`pretrained`, `datasets`, `features`, `memory`, `cache`, `layers`, `mapping`, `sampling`, `train`,
`loop`, `scoring`, `checkpoint`, `metrics`, `intervals`, `report`, `history`, `evaluate`, `group`,
`run`. Around it, many runs and what they show: `plan`, `sweep`, `engines`, `results`, `published`,
`tables`, `plots`, `claims`, `page`, `tensorboard`. Each imports only from those before it.

After Wan, Gao, Li and Wen, "Unsupervised Image Anomaly Detection and Segmentation Based on
Pre-trained Feature Mapping" (2022); equations and tables are cited by their numbers there.
"""

from pfm_jax.config import Config
from pfm_jax.types import InputError

__all__ = ["Config", "InputError"]
