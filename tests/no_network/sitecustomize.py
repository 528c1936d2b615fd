"""Python imports this by itself in every process whose PYTHONPATH has this folder: none of them reaches the network.

VIDKIT_TEST_NETWORK: "none", or "loopback" where Jupyter's kernels are reached. What was refused is noted in the file
VIDKIT_TEST_NETWORK_LOG, as a library may hide the error.
"""

import os
import sys
import traceback

ALLOWED = {"none": (), "loopback": ("127.0.0.1", "::1", "localhost")}[os.environ["VIDKIT_TEST_NETWORK"]]
LOG = os.environ["VIDKIT_TEST_NETWORK_LOG"]
#: of the interpreter's events: which of their arguments is the address, or the host
WATCHED = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}


def refuse(event, arguments):
    if event not in WATCHED:
        return
    address = arguments[WATCHED[event]]
    if not isinstance(address, tuple) and "get" not in event:
        return  # a socket in the file system
    host = address[0] if isinstance(address, tuple) else address
    if host in ALLOWED:
        return
    with open(LOG, "a", encoding="utf-8") as log:  # noqa: PTH123  (as little as can be is imported here)
        print(event, address, file=log)
        traceback.print_stack(file=log)
    raise OSError(f"{event} {address}: there is no network here")


sys.addaudithook(refuse)
