"""Losses: terms, statistics, metrics."""
