"""Models with their parameters, on host arrays: for people and for scripts.

token_lm.TokenLM      frames of codes; `StageLM` goes on from another's.
segment_lm.SegmentLM  sequences of segments, such as text and speech.
sample_lm.SampleLM    samples of audio.
caching.fill          a corpus as a tokenizer's tokens.
"""
