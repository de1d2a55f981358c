"""Verify that a written model is what its own record says; documents of commands for pipelines."""
