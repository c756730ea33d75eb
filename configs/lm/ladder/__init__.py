"""From GPT-2 to gpt-oss, one ingredient a config.

The rungs, each of which changes one thing of the one before: gpt2, rope,
rms_norm, swiglu, gqa, moe, sliding_window, sinks, no_dropout, clamped_swiglu,
gpt_oss. Biases stay: gpt-oss has them in attention, router and experts.

    python -m audiolm_jax.main --config=configs/lm/ladder/moe.py:cpu \
        --workdir=runs/ladder/moe

trains a rung on the tokens of tools/quickstart.py (runs/quickstart/tokens; set
--config.data.cache, --config.objective.codebooks and
--config.evaluators.lm.cache for others); ':smoke' runs every line of it.
leave_out.py has the end state without one ingredient.
"""
