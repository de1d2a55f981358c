"""Train a graph towards the answers of the one that it was cut from (needs PyTorch: the extra `distill`)."""
