"""Slots of a frame <-> decoder steps, exactly."""
