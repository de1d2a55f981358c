"""The one array type that the annotations use."""

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
