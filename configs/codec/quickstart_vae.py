"""The quickstart's codec with continuous latents in place of codes.

python -m audiolm_jax.main --config=configs/codec/quickstart_vae.py:cpu \
    --workdir=runs/flow/vae

All is that of configs/codec/quickstart.py but for the bottleneck: 32 latents a
frame, 50 frames a second, normal distributions near the standard one. What
models of latents learn from (configs/lm/flow.py).

    held_out = codec.Codec(split='test', languages=('en', 'fr', 'es'), limit=60)
    scores = held_out.build(None).score(audiolm_jax.load('runs/flow/vae'))
    base.summarize(scores)['mel']              # of audiolm_jax.evaluation

gives the distances below, for runs/quickstart/tokenizer too.

Hardware: 2 CPU cores; 6.5 minutes beside other work (`:smoke`: English only, half
a minute, most of it compiling). Expected on 60 test clips: a mel distance of .1545
[.1525, .1567] from the means, .976 [.971, .981] times that of the quickstart's 8
codebooks after the same 950 steps, one seed (words were not compared: no recogniser
of English was here). The latents' deviations are .8 to 1.7, their divergence from
the standard normal 98 nats a frame. `:gpu` was built and traced, not run.
"""

from audiolm_jax import config
from audiolm_jax import train
from audiolm_jax.tokenizers import bottlenecks
from configs.codec import quickstart as codec_config

DIMENSION = 32


def get_config(arg: str = 'cpu') -> train.Config:
  """The config; `arg` is 'smoke', 'cpu' or 'gpu'."""
  return config.replace(
      codec_config.get_config(arg),
      {
          'objective.tokenizer.bottleneck': bottlenecks.Vae(
              dimension=DIMENSION, kl_weight=1e-3
          )
      },
  )
