"""The documentation as a site: `sphinx-build -W docs build/site` (extra [docs]).

https://www.sphinx-doc.org/en/master/usage/configuration.html, https://myst-parser.readthedocs.io/en/latest/configuration.html
"""

from onnxslim_bert import __version__

project = "onnxslim-bert"
release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["pipelines"]
html_theme = "furo"
myst_heading_anchors = 4
