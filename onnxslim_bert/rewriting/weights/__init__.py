"""Fewer stored numbers for matrices and tables: two thin factors, sharing between layers, few bits, zeros."""
