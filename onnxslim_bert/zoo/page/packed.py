"""Numbers and fragments packed into a page, small."""

import base64
import gzip
import json
import math
from typing import Any

DIGITS = 6  # significant, of every number: more than a picture shows


def packed(document: Any) -> str:
    """JSON, compressed with gzip, in base64: the same for the same document. data.js unpacks it."""
    text = json.dumps(_short(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode()


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
