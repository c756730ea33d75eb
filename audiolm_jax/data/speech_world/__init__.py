"""speech_world: a corpus whose every factor and every entropy is known.

`grammar` and `languages` make texts, `phones` their sounds and durations. Three
engines say them, each an `engine.Engine`: `source_filter`, our own, of which
everything is known (`speakers` the voices, `utterance` how one says a text,
`source` and `synthesiser` the audio); `espeak`, with 104 voices of another
kind; `piper`, with a natural one. `channels` is what happens to the audio;
`clips` puts all together, `corpus` builds them into the cache, and `known` reads
what is stored of a clip.
"""
