"""`python -m vidkit`: the command line."""

from vidkit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
