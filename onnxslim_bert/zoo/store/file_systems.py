"""The file systems of fsspec, and what is to be known of them."""

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from onnxslim_bert.errors import StorageError, one_line

OBJECT_STORES = {"abfs", "abfss", "az", "gcs", "gs", "memory", "oss", "s3", "s3a"}


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system that a path or URL is on, and the absolute path there. Raises StorageError without its driver."""
    try:
        if "://" not in url:
            return LocalFileSystem(), LocalFileSystem._strip_protocol(url)
        files, path = url_to_fs(url)
    except ImportError as error:
        raise StorageError(f"{url}: {one_line(error)}, with pip install") from error
    except Exception as error:  # an unknown protocol, credentials
        raise StorageError(
            f"{url}: cannot be opened ({reason(error)}); give a folder or a URL that fsspec opens"
        ) from error
    return files, path.rstrip("/")


def shows_puts_whole(files: AbstractFileSystem) -> bool:
    """Whether others see a file that is being put whole or not at all, and not one that grows under its name."""
    protocols = (files.protocol,) if isinstance(files.protocol, str) else files.protocol
    return not OBJECT_STORES.isdisjoint(protocols)


def reason(error: Exception) -> str:
    """Why a file system failed, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return getattr(error, "strerror", None) or one_line(error) or type(error).__name__
