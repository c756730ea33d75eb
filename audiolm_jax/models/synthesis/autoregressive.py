"""Audio from models that draw a frame's codes after those of the one before."""

from audiolm_jax import config
from audiolm_jax import generation
from audiolm_jax.models import token_lm
from audiolm_jax.models.synthesis import base as synthesis_base


class Autoregressive(synthesis_base.OfCodes):
  """Continues prompts, with `--stream` while it is heard."""

  model = token_lm.TokenLM
  takes = synthesis_base.SAMPLER | {
      'cache_seconds',
      'sink_tokens',
      'stream',
      'weights',
  }

  def __init__(self, lm, conditions, prompt, options):
    super().__init__(lm, conditions, prompt, options)
    self._kept = self._in_sight()
    self.told |= {'sampler': synthesis_base.sampler(options), **self._kept}

  @classmethod
  def fits(cls, lm):
    # A model of another's codes continues no audio.
    return super().fits(lm) and hasattr(lm.decoder, 'pattern')

  def make(self, write):
    lm, prompt = self.lm, self.prompt[None]
    if self.options.stream:
      frames = lm.session(prompt, self.frames, **self.told)
      lm.tokenizer.decode_frames(frames, write)
      return
    codes = lm.generate(prompt, self.frames, **self.told)
    synthesis_base.decode(lm.tokenizer, codes, write)

  def cost(self):
    # What a prompt's steps cost is counted as theirs are.
    passes = self._steps(self.frames) - self._steps(len(self.prompt))
    seconds = self.frames / self.lm.frame_rate
    flops = self.lm.generation_flops(seconds, guided=self.guided, **self._kept)
    twice = ', each with and without conditions' if self.guided else ''
    return (
        f'{passes} steps{twice}; {flops / 1e9:.3g} GFLOPs if all were generated'
    )

  def _steps(self, frames):
    decoder = self.lm.decoder
    return decoder.pattern.steps(frames, len(decoder.vocabularies))

  def _in_sight(self):
    """Options of what attention keeps in sight, which must have a place."""
    options, frames = self.options, self.frames
    name = f'--seconds={options.seconds:g}'
    if frames is not None and self._steps(frames) >= generation.ENDLESS:
      raise config.ConfigError(f'{name} is too long: inf has no end.')
    rate = self.lm.tokenizer.spec.frame_rate
    kept = synthesis_base.kept(options, frames, rate)
    if kept is not None:
      # In steps: a pattern may take several for a frame.
      kept = self._steps(kept)
    sinks = {'sink_tokens': options.sink_tokens}
    with synthesis_base.named(name + ': {}'):
      self.lm.check_fits(frames, kept, guided=self.guided, **sinks)
    return {'cache_length': kept, **sinks}
