"""Audio <-> tokens, discrete or continuous."""
