"""Models from the network: the one part of vidkit that goes there, and only when it is asked to."""

from vidkit.models.download.fetching import Downloaded, download
from vidkit.models.download.progress import DownloadProgress

__all__ = ["DownloadProgress", "Downloaded", "download"]
