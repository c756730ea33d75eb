"""Pure functions on arrays: the maths of the whole project.

Every use of a weight goes through `einsum`, `conv`, `conv_transpose`,
`depthwise_conv`, `depthwise_conv_transpose`, `take` or `ragged_dot` here,
whatever kind of leaf it is.
"""

from audiolm_jax.ops.linear import axis_norms
from audiolm_jax.ops.linear import conv
from audiolm_jax.ops.linear import conv2d
from audiolm_jax.ops.linear import conv_transpose
from audiolm_jax.ops.linear import depthwise_conv
from audiolm_jax.ops.linear import depthwise_conv_transpose
from audiolm_jax.ops.linear import einsum
from audiolm_jax.ops.linear import ragged_dot
from audiolm_jax.ops.linear import take
from audiolm_jax.ops.linear import weight_norm
from audiolm_jax.ops.weights import Int8Tensor
from audiolm_jax.ops.weights import LoraTensor
from audiolm_jax.ops.weights import map_weights
from audiolm_jax.ops.weights import materialize
from audiolm_jax.ops.weights import pack
from audiolm_jax.ops.weights import PackedTensor
from audiolm_jax.ops.weights import quantize
from audiolm_jax.ops.weights import weight
from audiolm_jax.ops.weights import Weight
