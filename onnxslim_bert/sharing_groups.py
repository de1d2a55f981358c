"""Which of several places share constants."""

from collections.abc import Sequence


def sharing_groups(names: Sequence[set[str]]) -> list[list[int]]:
    """Indices of the sets that have names in common, directly or through others, together; each group ascending."""
    groups: list[list[int]] = []
    for index, own in enumerate(names):
        joined = [group for group in groups if any(own & names[i] for i in group)]
        groups = [group for group in groups if group not in joined]
        groups.append(sorted([index, *(i for group in joined for i in group)]))
    return sorted(groups)
