"""Lets tests in every folder import `graphs` and `oracles`, which lie beside this file."""
