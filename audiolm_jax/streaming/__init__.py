"""The Steppable contract, streaming layers, combinators, contract test."""

from audiolm_jax.streaming.activations import Snake
from audiolm_jax.streaming.base import Layer
from audiolm_jax.streaming.base import length_mask
from audiolm_jax.streaming.base import pad_time
from audiolm_jax.streaming.base import Steppable
from audiolm_jax.streaming.base import zero_masked
from audiolm_jax.streaming.branches import Parallel
from audiolm_jax.streaming.branches import Repeat
from audiolm_jax.streaming.combinators import Map
from audiolm_jax.streaming.combinators import Residual
from audiolm_jax.streaming.combinators import Serial
from audiolm_jax.streaming.layers import Conv
from audiolm_jax.streaming.layers import ConvTranspose
from audiolm_jax.streaming.layers import Dense
from audiolm_jax.streaming.layers import FrameNorm
from audiolm_jax.streaming.lstm import Lstm
from audiolm_jax.streaming.norms import Affine
from audiolm_jax.streaming.norms import RmsNorm
from audiolm_jax.streaming.norms import Scale
from audiolm_jax.streaming.norms import TimeGroupNorm
from audiolm_jax.streaming.resample import AveragePool
from audiolm_jax.streaming.resample import Resample
from audiolm_jax.streaming.resample import Upsample
from audiolm_jax.streaming.spectral import CausalIstft
from audiolm_jax.streaming.spectral import CausalStft
from audiolm_jax.streaming.spectral import FrameStack
