"""A kernel manager whose kernel outlives the notebook, with the one client that stays connected to it.

nbclient asks its manager for a client and waits until that is ready. These two answer as its own do; only that the
second time the kernel is there already, and "ready" means that it was made as new (`kernel_side.py`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError

from vidkit.errors import SetupError

#: Seconds for a kernel that does nothing else to be made as new; it takes milliseconds.
RENEW_SECONDS: Final = 10.0

#: Bytes of a Unix socket's path, and their end: macOS has the shortest limit, 104 with the closing zero (Linux 108).
LONGEST_SOCKET_PATH: Final = 103

MODULE: Final = "_vidkit_kernel_side"


class LivingClient(AsyncKernelClient):
    """Connects once and stays connected: a new client for each run leaks descriptors."""

    def __init__(self, manager: LivingManager, **kwargs: Any) -> None:
        super().__init__(parent=manager, **kwargs)
        self.manager = manager
        self.kernel_is_set_up = False

    def start_channels(self, *args: Any, **kwargs: Any) -> None:
        if not self.channels_running:
            super().start_channels(*args, **kwargs)

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait for a kernel that starts (seconds), or make a living one as new.

        Raises:
            RuntimeError: a starting kernel died, or did not answer within the timeout.
            DeadKernelError: a living one did not answer within `RENEW_SECONDS`.
            SetupError: `missing_dependency`, when the kernel is a Python without IPython.
        """
        if self.kernel_is_set_up:
            try:
                await self.renew(RENEW_SECONDS)
            except DeadKernelError:
                await self.manager.close(now=True)
                raise
            return
        await self._async_wait_for_ready(timeout)
        await self._set_up()
        self.kernel_is_set_up = True

    async def renew(self, seconds: float) -> None:
        """Clear what the last run left.

        Raises:
            DeadKernelError: it could not be done within these seconds.
        """
        code = f"__import__('sys').modules[{MODULE!r}].renew({self.manager.directory!r})"
        reply = await self._execute(code, seconds)
        if reply.get("status") != "ok":
            raise DeadKernelError(f"The kernel could not be made as new: {reply.get('evalue', 'it does not answer')}")

    async def _set_up(self) -> None:
        source = Path(__file__).with_name("kernel_side.py").read_text(encoding="utf-8")
        steps = [
            "import sys, types",
            f"module = sys.modules[{MODULE!r}] = types.ModuleType({MODULE!r})",
            f"exec({source!r}, vars(module))",
            f"module.move_fork_pipe({self.manager.fork_pipe!r})" if self.manager.fork_pipe else "",
        ]
        code = f"exec({chr(10).join(steps)!r}, {{}})"  # in a namespace of its own: nothing of it is left in the user's
        reply = await self._execute(code, RENEW_SECONDS)
        if reply.get("status") != "ok":
            reason = reply.get("evalue", "it does not answer")
            raise SetupError(
                "missing_dependency",
                f"The kernel {self.manager.kernel_name} cannot be kept warm: {reason}.",
                ["Use a kernel with ipykernel", "Leave out the engine vidkit-warm: papermill's own needs no IPython"],
            )

    async def _execute(self, code: str, seconds: float) -> dict[str, Any]:
        """The content of the reply; empty when there was none within these seconds, or the kernel has died."""
        deadline = time.monotonic() + seconds
        request = self.execute(code, silent=True, store_history=False)
        while (left := deadline - time.monotonic()) > 0 and await self.is_alive():
            try:
                reply = await self._async_recv_reply(request, timeout=min(left, 1.0))
            except TimeoutError:
                continue
            if reply["content"]["status"] != "aborted":
                return dict(reply["content"])
            # as are all that were waiting when a cell raised an error
            request = self.execute(code, silent=True, store_history=False)
        return {}


class LivingManager(AsyncKernelManager):
    """One kernel from its start to its end, over sockets in a private folder where the system has such sockets."""

    def __init__(self, kernel_name: str, environment: Mapping[str, str]) -> None:
        super().__init__(kernel_name=kernel_name)
        self._environment = dict(environment)
        #: where the next notebook runs; read whenever the kernel is made as new
        self.directory = str(Path.cwd())
        self.folder, has_sockets = private_folder()
        self.connection_file = str(self.folder / "kernel.json")
        if has_sockets:
            self.transport, self.ip = "ipc", str(self.folder / "k")
        self.fork_pipe = f"ipc://{self.folder / 'fork'}" if has_sockets else None
        self._living: LivingClient | None = None

    def start_kernel(self, **options: Any) -> Any:
        return super().start_kernel(**{"env": self._environment, **options})

    def client(self, **kwargs: Any) -> LivingClient:  # type: ignore[override]
        """The client: always the same."""
        if self._living is None:
            self._living = LivingClient(self, connection_file=self.connection_file, **self._connection(), **kwargs)
        return self._living

    def _connection(self) -> dict[str, Any]:
        return dict(self.get_connection_info(session=True))

    async def close(self, *, now: bool = False) -> None:
        """End the kernel and give everything back; harmless when it is dead, or was closed before.

        Args:
            now: kill it, rather than let it end by itself, which takes up to 5 seconds.
        """
        if await self.is_alive():
            await self.shutdown_kernel(now=now)
        await self.cleanup_resources()
        if self._living is not None:
            self._living.stop_channels()
        shutil.rmtree(self.folder, ignore_errors=True)


def private_folder() -> tuple[Path, bool]:
    """A new folder that only this user may enter, and whether Unix sockets can be used in it."""
    if os.name != "posix" or not zmq.has("ipc"):
        return Path(tempfile.mkdtemp(prefix="vidkit-")), False
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108  (mkdtemp makes its folder safely)
        folder = Path(tempfile.mkdtemp(prefix="vidkit-", dir=parent))
        if len(os.fsencode(folder / "fork")) <= LONGEST_SOCKET_PATH:
            return folder, True
        folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="vidkit-")), False
