"""Where the file of a named data set is: $ONNXSLIM_DATA, else the Hugging Face hub's cache, else the hub."""

import inspect
import os
from pathlib import Path

from onnxslim_bert.calibration.files import READERS
from onnxslim_bert.errors import DataError

REPOSITORY = "nyu-mll/glue"


def find_file(name: str, split: str) -> Path:
    """The file that holds `split` (train, validation, test, ...) of the GLUE set `name`.

    Locally $ONNXSLIM_DATA/<name>/<split>.<a type that can be read>; `dev` may stand for `validation`.
    On the hub the parquet file of nyu-mll/glue, under huggingface_hub's own settings: HF_HOME, HF_ENDPOINT,
    HF_TOKEN, HF_HUB_OFFLINE. A file that is in its cache is used without asking the hub.
    """
    data = os.environ.get("ONNXSLIM_DATA")
    local = _in_folder(Path(data) / name, split) if data else None
    return local or _from_hub(name, split)


def _in_folder(folder: Path, split: str) -> Path | None:
    stems = (split, split.replace("validation", "dev"))
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in READERS)
    return next((path for path in candidates if path.is_file()), None)


def _from_hub(name: str, split: str) -> Path:
    remedy = f"or put {split}.tsv into $ONNXSLIM_DATA/{name}, or use the built-in set 'reviews'"
    try:
        from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    except ImportError as error:
        raise DataError(
            f"'{name}' is not in $ONNXSLIM_DATA, and there is no huggingface_hub to fetch it: "
            f"pip install 'onnxslim-bert[hub]', {remedy}"
        ) from error
    file = f"{name}/{split}-00000-of-00001.parquet"
    cached = try_to_load_from_cache(REPOSITORY, file, repo_type="dataset")
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(REPOSITORY, file, repo_type="dataset")
    try:
        _ask_once(url)
        return Path(hf_hub_download(REPOSITORY, file, repo_type="dataset"))
    # Besides its own errors the library lets those of its HTTP client through, which differ from version to version.
    except Exception as error:
        raise DataError(f"'{name}' from {url}: {_reason(error)}, {remedy}") from error


def _ask_once(url: str) -> None:
    """Raise the library's error when the hub does not give the file at `url`; the download would repeat for minutes.

    The library asks by requests up to version 0.36, which follows no redirect of HEAD, and by httpx after it.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    head = get_session().head
    own = {"follow_redirects": False} if "follow_redirects" in inspect.signature(head).parameters else {}
    response = head(url, headers=build_hf_headers(), timeout=constants.HF_HUB_ETAG_TIMEOUT, **own)
    if response.status_code >= 400:  # a redirect leads to where the file is stored
        hf_raise_for_status(response)


def _reason(error: Exception) -> str:
    from huggingface_hub.utils import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "not in the hub's cache, and HF_HUB_OFFLINE is set: unset it once"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"access refused ({status}): log in with 'hf auth login' or set HF_TOKEN"
        return f"the server answered {status}: check HF_ENDPOINT, try again later"
    cause = error.__cause__ or error
    detail = (str(cause).splitlines() or ["no detail"])[0]
    return f"{type(cause).__name__} ({detail}): check the connection, HF_ENDPOINT and the proxy"
