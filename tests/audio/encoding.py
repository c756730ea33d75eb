"""Independent encoders, as files.write knows only wav and flac."""

import av
import soundfile

from audiolm_jax.audio import files


def encode(path, codec, audio, rate, format=None):
  """One channel [T, 1] in [-1, 1], by FFmpeg's name of a codec."""
  if codec == 'vorbis':  # PyAV's wheel reads it but does not write it.
    soundfile.write(path, audio, rate, subtype='VORBIS')
    return
  with av.open(str(path), 'w', format=format) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.layout = 'mono'
    frame = av.AudioFrame.from_ndarray(
        files.to_int16(audio).T.copy(), format='s16', layout='mono'
    )
    frame.sample_rate = rate
    resampler = av.AudioResampler(
        format=stream.codec_context.format,
        layout='mono',
        rate=rate,
        frame_size=stream.codec_context.frame_size or 1024,
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
      container.mux(stream.encode(part))
    container.mux(stream.encode(None))
