"""The quickstart's language model told one thing of each clip, in one place.

text_cross, text_prefix, language_film, language_add, speaker_prefix: what, and
how it acts; all else is the quickstart's, which is the model that is told
nothing.

    python -m audiolm_jax.main --config=configs/lm/conditioning/text_cross.py:cpu \
        --workdir=runs/conditioning/text_cross

trains on the tokens of tools/quickstart.py (runs/quickstart/tokens; set
--config.data.cache, --config.objective.codebooks and
--config.evaluators.lm.cache for others); ':smoke' runs every line of it. One
row in ten has no condition, so that generation may be guided:

    python tools/generate.py --model=runs/conditioning/text_cross \
        --text='press one' --guidance=2 --out=one.wav
"""
