"""speech_world: a corpus whose every factor and every entropy is known.

`grammar` and `languages` make texts, `phones` their sounds and durations,
`speakers` the voices, `utterance` how one says a text, `source` and
`synthesiser` the audio, `channels` what happens to it; `clips` puts them
together, and `corpus` builds them into the cache.
"""
