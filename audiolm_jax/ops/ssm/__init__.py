"""State space models and linear recurrences: pure functions, no parameters.

Every model has a form over a whole sequence, with the state before it and the
state after it, and a form of one position; they agree to rounding errors.
"""
