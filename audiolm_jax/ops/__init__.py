"""Pure functions on arrays: the maths of the whole project.

Every use of a weight goes through `linear`, `einsum`, `conv`, `conv2d`,
`conv_transpose`, `depthwise_conv`, `depthwise_conv_transpose`, `take` or
`ragged_dot` here, whatever kind of leaf it is.
"""

from audiolm_jax.ops.products import axis_norms
from audiolm_jax.ops.products import conv
from audiolm_jax.ops.products import conv2d
from audiolm_jax.ops.products import conv_transpose
from audiolm_jax.ops.products import depthwise_conv
from audiolm_jax.ops.products import depthwise_conv_transpose
from audiolm_jax.ops.products import einsum
from audiolm_jax.ops.products import linear
from audiolm_jax.ops.products import ragged_dot
from audiolm_jax.ops.products import take
from audiolm_jax.ops.products import weight_norm
from audiolm_jax.ops.weights import Int8Tensor
from audiolm_jax.ops.weights import LoraTensor
from audiolm_jax.ops.weights import map_weights
from audiolm_jax.ops.weights import materialize
from audiolm_jax.ops.weights import pack
from audiolm_jax.ops.weights import PackedTensor
from audiolm_jax.ops.weights import quantize
from audiolm_jax.ops.weights import weight
from audiolm_jax.ops.weights import Weight
