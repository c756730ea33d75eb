"""Files, resampling, features, spectrogram images."""
