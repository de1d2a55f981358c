"""Fewer numbers for the same matrices: factors, sharing, zeros."""
