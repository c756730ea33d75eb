"""Corpora, pipelines and the token cache."""
