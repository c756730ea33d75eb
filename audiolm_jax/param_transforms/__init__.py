"""Which parameters train, and how: full, frozen, LoRA."""
