"""Pictures, videos and sounds: sizes from their headers, decoding, spectrograms."""
