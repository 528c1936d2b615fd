"""What was read of files, kept in memory until they change: a second look opens nothing."""

from __future__ import annotations

import errno
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: A file's time advances in ticks of up to 10 ms, so that two changes can have one time. What was read sooner after a
#: change is not kept.
_SETTLED_NS: Final = 100_000_000


class FileIdentity(NamedTuple):
    """A file as it is now; another content has another identity."""

    path: str
    inode: int
    size: int
    mtime_ns: int


def identity_of(path: Path) -> FileIdentity:
    """Raises OSError as it is, when there is no such file, or something else: opening a pipe can take forever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return FileIdentity(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


class RememberedByFile(Generic[T]):
    """The results of reading files, for as long as each file stays what it is. For use from any thread.

    most: results kept; the one that was not asked for longest goes first. Results are shared: don't change them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._results: OrderedDict[FileIdentity, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, read: Callable[[Path], T]) -> T:
        """What `read(path)` gave when the file was last what it is now. Errors come as they are, and are not kept.

        Raises OSError as it is, when there is no such file.
        """
        identity = identity_of(path)
        with self._lock:
            if identity in self._results:
                self._results.move_to_end(identity)
                return self._results[identity]
        settled = abs(time.time_ns() - identity.mtime_ns) > _SETTLED_NS
        result = read(path)
        if settled and identity_of(path) == identity:
            self._keep(identity, result)
        return result

    def get_anew(self, path: Path, read: Callable[[Path], T]) -> T:
        """What `read(path)` gives now, whatever is remembered; that is what is remembered then."""
        with self._lock:
            for identity in [known for known in self._results if known.path == str(path)]:
                del self._results[identity]
        return self.get(path, read)

    def _keep(self, identity: FileIdentity, result: T) -> None:
        with self._lock:
            self._results[identity] = result
            while len(self._results) > self._most:
                self._results.popitem(last=False)
