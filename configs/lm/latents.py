"""Autoregression over a VAE's latents, told the text: one backbone, four heads.

The codec and its latents first, as configs/lm/flow.py says (runs/flow/vae and
runs/flow/tokens), then a model:

python -m audiolm_jax.main --config=configs/lm/latents.py:flow,cpu \
    --workdir=runs/latents/flow

    lm = audiolm_jax.load('runs/latents/flow')
    none = np.zeros((1, 0, 32), np.float32)
    found = lm.generate(none, 150, conditions={'text': ['press one']})

The quickstart's kind of causal transformer reads one frame of latents a step and
its output tells of the next:

| variant | head |
|---|---|
| mixture | 16 normal distributions (GIVT, 2312.02116): an exact likelihood |
| flow | flow matching by a small network (MAR's, 2406.11838), 16 steps of Euler |
| diffusion | the cosine process and target v, 16 steps of DPM++ (VibeVoice's kind) |
| one_step | flow matching and Lagrangian self-distillation, one jump (Pocket-TTS) |

In all of them the frames before are shown with up to half of noise (CALM,
2509.06926), the text is attended to as bytes, which one row in ten lacks, and
whether a frame is the last is predicted beside it. Averaged weights are what is
evaluated and exported. `nats_per_frame`, of normalised latents, compares the
heads that have a likelihood; the losses of heads do not compare.

Differences: GIVT's and MAR's backbones are of images; Kyutai's has a loss weighted
by a learned factor, and CALM a second transformer over the last ten clean frames.

Hardware: `:VARIANT,smoke` 2 CPU cores, seconds after compiling. `:VARIANT,cpu` 2
CPU cores, 8 minutes beside other work at a load of 6: far from trained to an end.
Expected of 100 validation clips (one seed): `flow` a loss of .735 and .021 nats a
frame of where rows end, `one_step` .741 (and .039 of distillation) and .020,
`mixture` 22.9 nats a frame and .032; `diffusion` was not run. On 20 test clips flow
costs 9.7 nats a frame where mixture costs 24.1 (docs/decoders.md; with rollouts). `:VARIANT,gpu`, a
larger model, one GPU: built and traced, not run.
"""

from audiolm_jax import config
from audiolm_jax import decoders
from audiolm_jax import evaluation
from audiolm_jax import objectives
from audiolm_jax import train
from audiolm_jax.decoders import latent_heads
from audiolm_jax.decoders.latent_heads import network as network_lib
from audiolm_jax.processes import gaussian
from audiolm_jax.processes import solvers
from audiolm_jax.processes import times as times_lib
from audiolm_jax.training import config_files
from configs.lm import flow


def _heads(network, draws):
  return {
      'flow': latent_heads.Diffusion(
          network, density=times_lib.LogitNormal(), draws=draws
      ),
      'mixture': latent_heads.Mixture(components=16),
      'diffusion': latent_heads.Diffusion(
          network,
          process=gaussian.Cosine(),
          target='v',
          draws=draws,
          solver=solvers.Dpm2m(),
      ),
      'one_step': latent_heads.FlowMap(
          network, density=times_lib.LogitNormal(), draws=draws
      ),
  }


VARIANTS = tuple(_heads(network_lib.AdalnMlp(), 1))


def get_config(arg: str = 'flow,cpu') -> train.Config:
  """The config; `arg` is a variant, and 'smoke', 'cpu' or 'gpu'."""
  variant, size = config_files.choose(arg, VARIANTS, config_files.SIZES)
  network = network_lib.AdalnMlp(
      *{'smoke': (64, 2), 'cpu': (256, 3), 'gpu': (768, 6)}[size]
  )
  base = flow.get_config(size)
  decoder = base.objective.decoder
  return config.replace(
      base,
      {
          'objective': objectives.NextLatent(
              decoder=decoders.LatentDecoder(
                  dimension=decoder.dimension,
                  backbone=config.replace(
                      decoder.backbone,
                      {
                          'mixers[0].mask_kind': 'causal',
                          'adaptive': 'none',
                          'film_silu': False,
                      },
                  ),
                  # The head's draws cost as much as the backbone.
                  head=_heads(network, 4 if size == 'gpu' else 2)[variant],
                  conditions=decoder.conditions,
                  history_noise=0.5,
              )
          ),
          'evaluators': {
              'latents': evaluation.LatentLosses(
                  clips=base.evaluators['flow'].clips
              )
          },
          'steps': {'smoke': 20, 'cpu': 500, 'gpu': 200_000}[size],
          'batch_size': {'smoke': 8, 'cpu': 8, 'gpu': 128}[size],
          'eval_every': {'smoke': 20, 'cpu': 500, 'gpu': 10_000}[size],
      },
  )
