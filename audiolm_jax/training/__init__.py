"""Mesh and sharding rules, train state, step, optimizers, checkpoints, writers, costs."""
