"""Layers that run on a whole sequence or step by step, with the same result."""
