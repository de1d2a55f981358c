"""Integer weights and activations: rounding, ranges, and the operators that hold them."""
