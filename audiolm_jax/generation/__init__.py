"""Sampling and streaming."""
