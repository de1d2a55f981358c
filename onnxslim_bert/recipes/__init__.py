"""Recipes, passes that run one after the other: their text, the runner, provenance, and what each target needs."""
