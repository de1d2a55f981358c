"""Where models run: targets, sessions on them that are what was asked for, and where each node goes."""
