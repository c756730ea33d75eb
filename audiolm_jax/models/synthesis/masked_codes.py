"""Audio from models that draw all frames at once, in passes over them."""

import numpy as np

from audiolm_jax import config
from audiolm_jax.generation import unmask
from audiolm_jax.models import masked_lm
from audiolm_jax.models.synthesis import base as synthesis_base
from audiolm_jax.processes import unmasking


class MaskedCodes(synthesis_base.OfCodes):
  """Continues prompts, and draws pieces of them anew."""

  model = masked_lm.MaskedLM
  takes = synthesis_base.SAMPLER | {
      'infill',
      'order',
      'schedule',
      'steps',
      'temperature_end',
      'weights',
  }

  def __init__(self, lm, conditions, prompt, options):
    super().__init__(lm, conditions, prompt, options)
    self._plans = self._planned()
    known = synthesis_base.known_frames(self)[:, None]
    known = np.broadcast_to(known, (self.frames, prompt.shape[1]))
    self.told |= {'plans': self._plans, 'known': known[None]}

  def make(self, write):
    more = self.frames - len(self.prompt)
    codes = np.pad(self.prompt, ((0, more), (0, 0)))[None]
    codes = self.lm.infill(codes, **self.told)
    synthesis_base.decode(self.lm.tokenizer, codes, write)

  def cost(self):
    lm, plans = self.lm, unmask.of_stages(self.lm.decoder, self._plans)
    passes = sum(plan.steps for plan in plans)
    seconds = self.frames / lm.frame_rate
    flops = lm.generation_flops(seconds, plans=plans, guided=self.guided)
    twice = ', each with and without conditions' if self.guided else ''
    return (
        f'{passes} passes over {self.frames} frames{twice};'
        f' {flops / 1e9:.3g} GFLOPs if all were generated'
    )

  def _planned(self):
    """How the stages are drawn."""
    options = self.options
    given = {'sampler': synthesis_base.sampler(options)}
    if options.order:
      given['order'] = unmasking.ORDERS[options.order]()
    for name in ('schedule', 'temperature_end'):
      if getattr(options, name) is not None:
        given[name] = getattr(options, name)
    steps = options.steps or (unmask.Plan().steps,)
    stages = len(self.lm.decoder.order)
    if len(steps) > stages:
      raise config.ConfigError(
          f'--steps has {len(steps)} numbers, but {options.model} has {stages}'
          ' stages.'
      )
    return tuple(unmask.Plan(steps=n, **given) for n in steps)
