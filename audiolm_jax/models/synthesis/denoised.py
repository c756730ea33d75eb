"""Audio from models that denoise all latents of a row at once."""

import functools

import numpy as np

from audiolm_jax import config
from audiolm_jax.models import flow_lm
from audiolm_jax.models.synthesis import base as synthesis_base
from audiolm_jax.processes import guidance as guidance_lib
from audiolm_jax.processes import solvers

_TAKES_NONE = 'was trained to take no given latents (decoder.gaps = None)'


class Denoised(synthesis_base.OfLatents):
  """Continues prompts, draws pieces of them anew, and varies audio."""

  model = flow_lm.FlowLM
  takes = frozenset(
      {
          'cache_seconds',
          'guidance_kind',
          'infill',
          'init',
          'negative',
          'sampler',
          'steps',
          'strength',
          'stream',
      }
  )

  def __init__(self, lm, conditions, prompt, options):
    self._init = None
    if options.init is not None:
      self._init = self.read(lm, options.init)
      if not len(self._init):
        raise config.ConfigError(
            f'--init={options.init}: shorter than a frame'
            f' ({lm.tokenizer.spec.hop} samples).'
        )
    super().__init__(lm, conditions, prompt, options)
    solver, grid = synthesis_base.solver(options), synthesis_base.grid(options)
    guidance = _guidance(options)
    with synthesis_base.named(f'{options.model}: {{}}'):
      chosen = lm.settings(solver, grid, guidance)
    self._settings = {
        name: getattr(chosen, name) for name in ('solver', 'grid', 'guidance')
    }
    self.told |= self._settings
    self._check_times()
    self._windows = self._windowed()
    if options.negative is not None:
      self.told['negative'] = {'text': [self._negative()]}
    if len(prompt):
      self.told |= self._given()
    if self._init is not None:
      self.told['init'] = self._init[None]
      self.told['strength'] = options.strength
    if options.cache_seconds is not None and not options.stream:
      raise config.ConfigError(
          '--cache_seconds does nothing without --stream: all frames are seen.'
      )
    self._session = self._opened() if options.stream else None

  @property
  def there(self):
    return len(self.prompt if self._init is None else self._init)

  def make(self, write):
    if self._session is not None:
      self.lm.tokenizer.decode_frames(self._streamed(), write)
      return
    frames, made = self.frames, self.lm.generate
    if self._windows:
      made = functools.partial(self.lm.generate_long, **self._windows)
    latents = made(frames, [frames], **self.told)
    synthesis_base.decode(self.lm.tokenizer, latents, write)

  def cost(self):
    solver, grid = self._settings['solver'], self._settings['grid']
    count, frames = grid.steps * solver.evaluations, self.frames
    if self._windows:
      count *= len(flow_lm.windows(frames, **self._windows))
      frames = min(frames, self._windows['window'])
    flops = self.lm.generation_flops(
        self.frames / self.lm.frame_rate,
        strength=self.options.strength,
        **self._settings,
        **self._windows,
    )
    half = ', half of them without conditions' if self.guided else ''
    if self.options.negative is not None:
      half = ', half of them with the negative text'
    return (
        f'{count * (1 + self.guided)} evaluations of the network over {frames}'
        f' frames{half}; {flops / 1e9:.3g} GFLOPs'
    )

  def _opened(self):
    """What goes on block by block: the model must, and nothing else be asked."""
    options, frames = self.options, self.frames
    for name in ('init', 'window'):
      if getattr(options, name) is not None:
        raise config.ConfigError(
            f'--{name} is of whole rows: not with --stream.'
        )
    rate = self.lm.tokenizer.spec.frame_rate
    kept = synthesis_base.kept(options, frames, rate)
    told = {
        name: value
        for name, value in self.told.items()
        if name not in ('given', 'given_mask')
    }
    with synthesis_base.named('--stream: {}'):
      if kept is not None:
        kept = max(kept, self.lm.decoder.backbone.block_size)
      return self.lm.session(
          1,
          num_frames=None if frames is None else [frames],
          cache_length=kept,
          **told,
      )

  def _streamed(self):
    """Frames [1, D], each block as soon as it is made."""
    session, given = self._session, self.told.get('given')
    mask = self.told.get('given_mask')
    while self.frames is None or session.entered < self.frames:
      first, block = session.entered, session.block
      fed = {}
      if given is not None and first < given.shape[1]:
        part = slice(first, first + block)
        more = max(first + block - given.shape[1], 0)
        fed['given'] = np.pad(given[:, part], ((0, 0), (0, more), (0, 0)))
        fed['mask'] = np.pad(mask[:, part], ((0, 0), (0, more)))
      frames = session.step(**fed)
      left = block if self.frames is None else self.frames - first
      yield from frames[:, :left].swapaxes(0, 1)

  def _check_times(self):
    """Refuses a solver that asks what the model's predictions do not say."""
    decoder, solver = self.lm.decoder, self._settings['solver']
    if not isinstance(solver, solvers.Solver):
      # Jumps ask for no noise or data.
      return
    times = self._settings['grid'].times * (self.options.strength or 1)
    name = self.options.sampler or 'euler'
    with synthesis_base.named(f'--sampler={name}: {{}}'):
      decoder.process.check(
          decoder.target, solver.visited(times), solver.needs_slopes
      )

  def _windowed(self):
    """Frames of windows and of what they share; {} for no windows."""
    options, rate = self.options, self.lm.tokenizer.spec.frame_rate
    if options.window is None:
      return {}
    overlap = options.overlap
    if overlap is None:
      overlap = options.window / 4
    frames = {
        'window': round(options.window * rate),
        'overlap': round(overlap * rate),
    }
    with synthesis_base.named(
        f'--window={options.window:g} --overlap={overlap:g}: {{}}'
    ):
      flow_lm.windows(self.frames, **frames)
    if self.lm.decoder.gaps is None:
      raise config.ConfigError(f'--window: {options.model} {_TAKES_NONE}.')
    return frames

  def _negative(self):
    """The text that guidance leads away from."""
    has, text = self.lm.decoder.conditions, self.options.negative
    if 'text' not in has:
      raise config.ConfigError(
          f'--negative is a text: {self.options.model} was trained without; its'
          f' conditions: {sorted(has)}.'
      )
    with synthesis_base.named('--negative: {}'):
      has['text'].source.prepare([text])
    return text

  def _given(self):
    """The prompt, and which of it stays."""
    if self.lm.decoder.gaps is None:
      raise config.ConfigError(f'--prompt: {self.options.model} {_TAKES_NONE}.')
    more = 0 if self.frames is None else self.frames - len(self.prompt)
    return {
        'given': np.pad(self.prompt, ((0, more), (0, 0)))[None],
        'given_mask': synthesis_base.known_frames(self)[None],
    }


def _guidance(options):
  """How conditions are made to count for more; None for not at all."""
  if options.guidance is None:
    return None
  kind = options.guidance_kind or 'plain'
  if kind not in guidance_lib.GUIDANCE:
    raise config.ConfigError(
        f'--guidance_kind={kind} is none of {sorted(guidance_lib.GUIDANCE)}.'
    )
  scale = {'scale': options.guidance}
  if kind == 'interval':
    return guidance_lib.Interval(config.build(guidance_lib.Plain, scale))
  return config.build(guidance_lib.GUIDANCE[kind], scale)
