"""Audio from models that draw one frame of latents after the other."""

from audiolm_jax.decoders import latent_heads
from audiolm_jax.models import latent_lm
from audiolm_jax.models.synthesis import base as synthesis_base


class LatentFrames(synthesis_base.OfLatents):
  """Continues prompts until the model ends, with `--stream` while it is heard."""

  model = latent_lm.LatentLM
  takes = frozenset(
      {
          'cache_seconds',
          'history_noise',
          'sampler',
          'sink_tokens',
          'steps',
          'stream',
          'temperature',
          'threshold',
      }
  )

  def __init__(self, lm, conditions, prompt, options):
    super().__init__(lm, conditions, prompt, options)
    self._sampler = self._drawn()
    self._kept = self._in_sight()
    self.told |= {'sampler': self._sampler, **self._kept}
    self._made = None

  def make(self, write):
    lm, prompt = self.lm, self.prompt[None]
    if self.options.stream:
      session = lm.session(prompt, self.frames, **self.told)
      frames = iter(session)
      if self.frames is not None:
        frames = (x for x, _ in zip(frames, range(self.frames), strict=False))
      lm.tokenizer.decode_frames(frames, write)
      self._made = int(session.num_frames[0])
      return
    found = lm.generate(prompt, self.frames, **self.told)
    self._made = int(found.num_frames[0])
    latents = found.latents[:, : self._made]
    synthesis_base.decode(lm.tokenizer, latents, write)

  def cost(self):
    head = self.lm.decoder.head
    frames, twice = self._made - len(self.prompt), 1 + self.guided
    seconds = self._made / self.lm.frame_rate
    flops = self.lm.generation_flops(
        seconds, sampler=self._sampler, guided=self.guided, **self._kept
    )
    evaluations = frames * head.evaluations(self._sampler)
    both = ', the backbone with and without conditions' if self.guided else ''
    if self.guided and head.guides_predictions:
      evaluations *= twice
    ended = ''
    if self._made < self.frames:
      ended = f'; it ended {(self.frames - self._made)} frames before --seconds'
    return (
        f'{frames} steps{both}, {evaluations} evaluations of the head;'
        f' {flops / 1e9:.3g} GFLOPs if all were generated{ended}'
    )

  def _drawn(self):
    """How frames are drawn, which the model must have a use for."""
    options = self.options
    sampler = latent_heads.LatentSampler(
        temperature=options.temperature,
        grid=synthesis_base.grid(options),
        solver=synthesis_base.solver(options),
        history_noise=options.history_noise or 0.0,
        threshold=options.threshold,
    )
    with synthesis_base.named('how frames are drawn: {}'):
      self.lm.decoder.check_sampler(sampler, self.guided)
    return sampler

  def _in_sight(self):
    """Options of what attention keeps in sight, which must have a place."""
    options = self.options
    rate = self.lm.tokenizer.spec.frame_rate
    kept = synthesis_base.kept(options, self.frames, rate)
    with synthesis_base.named(f'--seconds={options.seconds:g}: {{}}'):
      self.lm.decoder.check_steps(self.frames)
    return {'cache_length': kept, 'sink_tokens': options.sink_tokens}
