"""The faults that tests/planted_faults.py plants.

A fault is a line of the package, found by its text wherever it stands: where the
text has changed, the fault is stated anew. Tests are named by file.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
  """One change that makes the package wrong.

  Attributes:
    name: what is wrong.
    old: text that stands once in the package.
    new: what stands there instead.
    tests: files, of which one must fail.
  """

  name: str
  old: str
  new: str
  tests: tuple[str, ...]


FAULTS = [
    # Maths.
    Fault(
        'a window is one key too wide',
        'seen &= query - key < self.window',
        'seen &= query - key <= self.window',
        ('test_attention.py',),
    ),
    Fault(
        'a block sees the one after it',
        'seen = key // self.block <= query // self.block',
        'seen = key // self.block <= query // self.block + 1',
        ('test_attention.py',),
    ),
    Fault(
        'an LSTM forgets at masked steps',
        'c = jnp.where(valid, f * c + i * g, c)',
        'c = f * c + i * g',
        ('test_recurrence.py',),
    ),
    Fault(
        'the gradient of the cell lacks a factor',
        'd_cell = jnp.where(valid, d_c, 0) + d_new * o * (1 - t * t)',
        'd_cell = jnp.where(valid, d_c, 0) + d_new * o * (1 - t)',
        ('test_recurrence.py',),
    ),
    Fault(
        "experts' loss counts masked steps",
        'probability = jnp.where(mask[..., None], probability, 0)',
        'probability = 1 * probability',
        ('test_moe.py',),
    ),
    Fault(
        'a Fourier transform has a frame less',
        'count = (x.shape[-1] - size) // hop + 1',
        'count = (x.shape[-1] - size) // hop',
        ('test_stft.py',),
    ),
    Fault(
        'the mel scale bends elsewhere',
        '_STEP = np.log(6.4) / 27',
        '_STEP = np.log(6.4) / 28',
        ('test_mel.py',),
    ),
    Fault(
        'YaRN scales nothing',
        'return 0.1 * math.log(self.factor) + 1.0',
        'return 1.0',
        ('test_rotary.py',),
    ),
    Fault(
        'weights of 4 bits are off by one',
        'return (nibbles.astype(jnp.float32) - 8) * self.scale',
        'return (nibbles.astype(jnp.float32) - 7) * self.scale',
        ('test_products.py',),
    ),
    # Streaming.
    Fault(
        'a convolution keeps the wrong past',
        'past = x[:, x.shape[1] - size :]',
        'past = x[:, :size]',
        ('test_layers.py', 'test_streaming_contract.py'),
    ),
    Fault(
        'padding comes through as it is',
        'x = streaming_base.pad_time(x, before, after)',
        'x = streaming_base.pad_time(x, before + 1, after - 1)',
        ('test_layers.py', 'test_streaming_contract.py'),
    ),
    # Patterns and decoders.
    Fault(
        'delays run the other way',
        'frame = step[..., None] - self._delays(slots)',
        'frame = step[..., None] - self._delays(slots)[::-1]',
        ('test_patterns.py',),
    ),
    Fault(
        'flattened slots are in another order',
        'return step[..., None] // slots, step[..., None] % slots',
        'return step[..., None] // slots, slots - 1 - step[..., None] % slots',
        ('test_patterns.py', 'test_decoder.py'),
    ),
    Fault(
        'a step sees its own codes',
        'return jnp.concatenate([first, x[:, :-1]], axis=1)',
        'return jnp.concatenate([x[:, :1], x[:, 1:]], axis=1)',
        ('test_decoder.py', 'test_row_starts.py'),
    ),
    # Generation.
    Fault(
        'top-p keeps one code too few',
        'before = jnp.cumsum(probability, axis=-1) - probability',
        'before = jnp.cumsum(probability, axis=-1)',
        ('test_sampling.py',),
    ),
    Fault(
        'min-p is a share of all',
        'least = logits.max(axis=-1, keepdims=True) + share',
        'least = logits.mean(axis=-1, keepdims=True) + share',
        ('test_sampling.py',),
    ),
    Fault(
        'a repeated code becomes likelier below zero',
        'lower = jnp.where(logits > 0, logits / penalty, logits * penalty)',
        'lower = logits / penalty',
        ('test_sampling.py',),
    ),
    Fault(
        'guidance has its sides exchanged',
        'mixed = scale * conditional + (1 - scale) * unconditional',
        'mixed = scale * unconditional + (1 - scale) * conditional',
        ('test_options.py', 'test_generate.py'),
    ),
    # Adaptation.
    Fault(
        'LoRA does not start at the base',
        'b = jnp.zeros((*batch, self.rank, shape[-1]), jnp.float32)',
        'b = jnp.ones((*batch, self.rank, shape[-1]), jnp.float32)',
        ('test_param_transforms.py',),
    ),
    Fault(
        'the base of LoRA trains, too',
        'return leaf.replace(w=param_transforms_base.holes(leaf.w))',
        'return leaf',
        ('test_param_transforms.py',),
    ),
    # Objectives.
    Fault(
        'the balancer forgets the share',
        'share = self.total_norm * weights[name] / jnp.maximum(whole, 1e-12)',
        'share = self.total_norm / jnp.maximum(whole, 1e-12)',
        ('test_balancer.py',),
    ),
    Fault(
        'real features get a gradient',
        'target = jax.lax.stop_gradient(of_real.values)',
        'target = of_real.values',
        ('test_adversarial.py', 'test_gan.py'),
    ),
    Fault(
        'a scale of the mel distance counts twice',
        'norm += 1 + alpha',
        'norm += 1 + 2 * alpha',
        ('test_distances.py',),
    ),
    # Tokenizers.
    Fault(
        'codes are packed in another order',
        'weights = 1 << np.arange(size - 1, -1, -1, dtype=np.int32)',
        'weights = 1 << np.arange(size, dtype=np.int32)',
        ('test_token_files.py', 'test_token_cache.py'),
    ),
    Fault(
        'segments fade with another weight',
        'weight = 0.5 - jnp.abs(place - 0.5)',
        'weight = 0.5 + jnp.abs(place - 0.5)',
        ('test_audio_segments.py',),
    ),
    Fault(
        'cross-fades jump',
        'weight = ((np.arange(n, dtype=np.float32) + 0.5) / n)[:, None]',
        'weight = ((np.arange(n, dtype=np.float32)[::-1] + 0.5) / n)[:, None]',
        ('test_windows.py',),
    ),
    Fault(
        'a window of a long file is left out',
        'held, start = [cut(joined, step)], start + step',
        'held, start = [cut(joined, step + 1)], start + step',
        ('test_long.py',),
    ),
    # Evaluation and comparison.
    Fault(
        'entropy is in nats',
        'entropy=float(-np.sum(p * np.log2(p)) + 0.0)',
        'entropy=float(-np.sum(p * np.log(p)) + 0.0)',
        ('test_metrics.py',),
    ),
    Fault(
        'SI-SDR is not scale-invariant',
        'target = (estimate @ reference) / power * reference',
        'target = reference',
        ('test_metrics.py',),
    ),
    Fault(
        'an interval takes n for n - 1',
        'error = values.std(ddof=1) / math.sqrt(n)',
        'error = values.std(ddof=0) / math.sqrt(n)',
        ('test_statistics.py',),
    ),
    Fault(
        'seeds are paired with each other',
        'table = np.array([[values[a][s] for s in seeds] for a in arms]',
        'table = np.array([list(values[a].values()) for a in arms]',
        ('test_blocks.py',),
    ),
    # Training.
    Fault(
        'a broken step is applied',
        'new = jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, state)',
        'new = jax.tree.map(lambda n, o: n, new, state)',
        ('test_step.py', 'test_train.py'),
    ),
    Fault(
        'a warm-up is a step too long',
        'start = schedule.learning_rate / (schedule.warmup_steps + 1)',
        'start = schedule.learning_rate / (schedule.warmup_steps + 2)',
        ('test_optimizers.py',),
    ),
    Fault(
        'the plateau ends too early',
        'stable = max(0, steps - self.warmup_steps - down)',
        'stable = max(0, steps - 2 * self.warmup_steps - down)',
        ('test_optimizers.py',),
    ),
    Fault(
        'terms are means of nothing',
        'return jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1),'
        ' 0.0)',
        'return value / weight',
        ('test_step.py',),
    ),
    # Data.
    Fault(
        'the last bucket is never full',
        'yield bound, size, members[start : start + size]',
        'yield bound, size, members[start : start + size - 1]',
        ('test_pipeline.py',),
    ),
    Fault(
        'a crop never starts at the end',
        'start = int(rng.integers(max(len(audio) - span, 0) + 1))',
        'start = int(rng.integers(max(len(audio) - span - 1, 0) + 1))',
        ('test_audio_crops.py',),
    ),
    # Configuration and files.
    Fault(
        'numbers of configs have no bounds',
        'value >= self.min) and (',
        'True) and (',
        ('test_config.py',),
    ),
    Fault(
        'an unknown key is let through',
        'near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)',
        'near = []',
        ('test_config.py', 'test_main.py'),
    ),
    Fault(
        'a segment is scored past its end',
        'valid = np.arange(codes.shape[1]) < np.asarray(num_frames)[:, None]',
        'valid = np.arange(codes.shape[1]) <= np.asarray(num_frames)[:, None]',
        ('test_metrics.py',),
    ),
    Fault(
        'masked: a place too many in the weight of the bound',
        'return Hidden(masked, (total / count).astype(jnp.float32))',
        'return Hidden(masked, (total / (count + 1)).astype(jnp.float32))',
        ('test_masked.py',),
    ),
    Fault(
        'masked: the step after in the bound of steps',
        'before, after = keep[step], keep[step + 1]',
        'before, after = keep[step + 1] - 1e-3, keep[step + 1]',
        ('test_masked.py',),
    ),
    Fault(
        'masked: stages count once in the bound',
        'factor = 1 if training else stages',
        'factor = 1',
        ('test_masked.py',),
    ),
    Fault(
        'masked: later stages are seen',
        'output = self._seen(\n        codes, draw.masked | later,',
        'output = self._seen(\n        codes, draw.masked,',
        ('test_masked.py',),
    ),
    Fault(
        'masked: rows share their noise',
        'keys = noise_lib.row_keys(rng, jnp.arange(rows))',
        'keys = noise_lib.row_keys(rng, jnp.zeros(rows, int))',
        ('test_unmask.py',),
    ),
    Fault(
        'masked: guidance on the wrong side',
        'context = guidance_lib.pair(context, null_context)\n  return _generate',
        'context = guidance_lib.pair(null_context, context)\n  return _generate',
        ('test_unmask.py',),
    ),
    Fault(
        'masked: the least likely first',
        'confidence = log_prob + self.noise',
        'confidence = -log_prob + self.noise',
        ('test_unmasking.py',),
    ),
    Fault(
        'masked: a window to one side',
        'jnp.abs(apart) < within',
        'apart < within',
        ('test_attention_mixer.py',),
    ),
    # Heads over latents.
    Fault(
        'a frame of latents sees itself',
        'x = jnp.concatenate([first, self._embed(x)[:, :-1]], axis=1)',
        'x = jnp.concatenate([first, self._embed(x)[:, 1:]], axis=1)',
        ('test_latent_decoder.py',),
    ),
    Fault(
        'the frame after the last is said to be the last',
        'last = jnp.arange(shape[1]) == num_frames[:, None] - 1',
        'last = jnp.arange(shape[1]) == num_frames[:, None]',
        ('test_latent_decoder.py',),
    ),
    Fault(
        'rows end before the frame that is the last',
        'return jnp.where(last, frame[:, 0] + 1, frames)',
        'return jnp.where(last, frame[:, 0], frames)',
        ('test_latent_lm.py',),
    ),
    Fault(
        'noise on the history is of one share in all rows',
        'part = jax.vmap(jax.random.uniform)(noise_lib.fold(keys, _SHARE))',
        'part = jnp.full(len(x), jax.random.uniform(keys[0]))',
        ('test_latent_decoder.py',),
    ),
    Fault(
        'noise of the history adds to the variance',
        'return jnp.sqrt(1 - share) * x + jnp.sqrt(share) * e',
        'return x + jnp.sqrt(share) * e',
        ('test_latent_decoder.py',),
    ),
    Fault(
        'a temperature multiplies the deviation of a mixture',
        'return mean + math.sqrt(sampler.temperature) * std * e',
        'return mean + sampler.temperature * std * e',
        ('test_latent_heads.py',),
    ),
    Fault(
        'a temperature leaves the noise of steps as it is',
        'return noise if spread == 1 else spread * noise',
        'return noise',
        ('test_latent_heads.py',),
    ),
    Fault(
        'the draws of a frame share their noise',
        'each = jax.vmap(noise_lib.fold, (None, 0))(keys, numbers).reshape(-1)',
        'each = jnp.concatenate([keys] * draws)',
        ('test_latent_heads.py',),
    ),
    Fault(
        'guidance of a head is on the wrong side',
        'return guidance_lib.mixed(given, null, guidance)',
        'return guidance_lib.mixed(null, given, guidance)',
        ('test_latent_heads.py',),
    ),
    Fault(
        'sessions feed frames as the tokenizer has them',
        'given = self._normalised(given)',
        'given = np.asarray(given)',
        ('test_latent_lm.py',),
    ),
]
