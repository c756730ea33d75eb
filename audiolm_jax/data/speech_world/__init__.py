"""speech_world: a corpus whose every factor and every entropy is known.

`grammar` and `languages` make texts, `phones` their sounds and durations,
`speakers` and `prosody` the voices, `synthesiser` the audio, `channels` what
happens to it; `corpus` puts them together.
"""
