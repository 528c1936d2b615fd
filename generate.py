"""Launcher for clients that run a script: `python generate.py '{"imagePath": ...}'` is `vidkit generate`."""

import sys

from vidkit.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["generate", *sys.argv[1:]]))
