"""Let later layers see only some tokens of a text: how tokens are ranked, and how the graph drops the others."""
