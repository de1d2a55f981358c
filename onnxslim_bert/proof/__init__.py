"""Measured evidence: task metrics, fidelity, latency and memory, and the budgets that they are held to."""
