# graphsurgeon has no annotations, and what is inferred from its source is wrong: its classes set attributes in mixins.
from typing import Any

def __getattr__(name: str) -> Any: ...
