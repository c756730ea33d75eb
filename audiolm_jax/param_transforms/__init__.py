"""Which parameters train, and how: full, frozen, LoRA.

To add one: a dataclass with `init`, `split` and `merge`, and a line here.
"""

from audiolm_jax.param_transforms.base import combine
from audiolm_jax.param_transforms.base import matching
from audiolm_jax.param_transforms.base import ParamTransform
from audiolm_jax.param_transforms.lora import Lora
from audiolm_jax.param_transforms.lora import merge_update
from audiolm_jax.param_transforms.selection import Frozen
from audiolm_jax.param_transforms.selection import Full

TRANSFORMS = {'full': Full, 'frozen': Frozen, 'lora': Lora}
