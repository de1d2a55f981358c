"""transformers.js with onnxruntime-node loads a written folder and answers what we read, within 1e-4."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from client_folders import SENTENCES, our_answers

LIBRARY = Path(os.environ.get("TRANSFORMERS_JS", "nowhere"))  # the folder in which npm installed it
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (LIBRARY / "node_modules/@huggingface/transformers").is_dir(),
    reason="TRANSFORMERS_JS names no folder in which npm installed @huggingface/transformers",
)
SCRIPT = Path(__file__).with_name("embed.mjs")


def test_transformers_js_takes_the_folder_as_it_is(embedder: Path) -> None:
    """pipeline("feature-extraction", folder, {dtype: "q8"}): onnx/model_quantized.onnx, mean pooling."""
    command = ["node", SCRIPT, LIBRARY, embedder, *SENTENCES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    wanted = our_answers(embedder / "onnx/model_quantized.onnx", SENTENCES)
    assert np.ptp(wanted, axis=0).max() > 1e-2
    np.testing.assert_allclose(json.loads(done.stdout), wanted, atol=1e-4, rtol=0)
