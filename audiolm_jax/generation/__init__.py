"""Generation: one step, one loop over it, and sessions."""

from audiolm_jax.generation.flow_session import FlowSession
from audiolm_jax.generation.generate import continue_prompts
from audiolm_jax.generation.generate import generate
from audiolm_jax.generation.generate import Generated
from audiolm_jax.generation.latent_session import LatentSession
from audiolm_jax.generation.options import Options
from audiolm_jax.generation.sample_session import SampleSession
from audiolm_jax.generation.sampling import Sampler
from audiolm_jax.generation.sampling import Stop
from audiolm_jax.generation.segment_session import SegmentSession
from audiolm_jax.generation.session import Session
from audiolm_jax.generation.steps import ENDLESS
from audiolm_jax.generation.steps import restart
from audiolm_jax.generation.steps import start
from audiolm_jax.generation.steps import State
from audiolm_jax.generation.steps import step
from audiolm_jax.generation.steps import take_prompts
from audiolm_jax.generation.tracks import Frames
from audiolm_jax.generation.weights import cast
from audiolm_jax.generation.weights import unroll
from audiolm_jax.generation.weights import with_keys
