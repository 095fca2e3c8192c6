"""Verbs: each ties `pipeline` and `models` together."""
