"""Asynchronous work for callers that are not: stopped by a cancel token within a tenth of a second."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from vidkit.errors import Cancelled
from vidkit.progress import CancelToken

Result = TypeVar("Result")

EVERY: Final = 0.1


def run_until_cancelled(work: Coroutine[Any, Any, Result], cancel: CancelToken) -> Result:
    """Do it, here or (where a loop runs already, as in a notebook's cell) in a thread.

    Raises:
        Cancelled: the token was set. What the work raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(watched(work, cancel))
    with ThreadPoolExecutor(1, "vidkit-download") as executor:
        try:
            return executor.submit(asyncio.run, watched(work, cancel)).result()
        except BaseException:
            cancel.cancel()  # the cell was interrupted: the thread must not go on alone
            raise


async def watched(work: Coroutine[Any, Any, Result], cancel: CancelToken) -> Result:
    task = asyncio.ensure_future(work)
    while not task.done():
        if cancel.cancelled:
            task.cancel()
        await asyncio.wait([task], timeout=EVERY)
    if task.cancelled():
        raise Cancelled(
            message="The download was cancelled; what has arrived is kept, and the same command goes on from there."
        )
    return task.result()
