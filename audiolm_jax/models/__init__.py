"""Models with their parameters, on host arrays: for people and for scripts.

audio_tokenizer.AudioTokenizer  audio to tokens and back.
token_lm.TokenLM      frames of codes; `StageLM` goes on from another's.
masked_lm.MaskedLM    frames of codes, any of which may be hidden.
segment_lm.SegmentLM  sequences of segments, such as text and speech.
sample_lm.SampleLM    samples of audio.
recogniser.PhoneRecogniser  audio to phones, by one of the `front_ends`.
kinds.KINDS           which of these a module becomes with its variables.
loading.load          a model back from its directory; `directory` writes those,
                      `pretrained` has what comes from other libraries.
synthesis.KINDS       what makes the audio of tools/generate.py, of each kind.
caching.fill          a corpus as a tokenizer's tokens.
"""
