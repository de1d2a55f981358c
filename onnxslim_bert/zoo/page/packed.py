"""Compress JSON for the page."""

import base64
import gzip
import json
from typing import Any

from onnxslim_bert.documents import plain

DIGITS = 6  # significant, of every number: more than a picture shows


def packed(document: Any) -> str:
    """JSON, compressed with gzip, in base64: the same for the same document. data.js unpacks it."""
    short = json.loads(json.dumps(plain(document)), parse_float=lambda text: float(f"{float(text):.{DIGITS}g}"))
    text = json.dumps(short, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode()
