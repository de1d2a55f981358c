"""Passes in a row: their text, the runner, provenance, what a target needs."""
