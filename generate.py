"""Launcher for clients that run a script: `python generate.py '{"imagePath": ...}'` is `vidkit generate`.

Written so that every Python since 2.7 can read it: one that cannot run vidkit answers what its client waits for, one
JSON error (`python_not_found`, exit code 3), which says which Python would.
"""

import json
import os
import sys

#: as `requires-python` in pyproject.toml
OLDEST = (3, 11)

FOLDER = os.path.dirname(os.path.abspath(__file__))


def main():
    if sys.version_info < OLDEST:
        return refuse("it is Python %d.%d, and vidkit needs %d.%d or newer" % (sys.version_info[:2] + OLDEST))
    try:
        from vidkit.cli import main as run
    except ImportError as error:
        return refuse("vidkit is not installed for it, or not all that it needs (%s)" % error)
    return run(["generate"] + sys.argv[1:])


def refuse(reason):
    answer = {
        "status": "error",
        "error": "Python not found",
        "message": "The Python that was started, %s, cannot run vidkit: %s." % (sys.executable, reason),
        "suggestions": suggestions(),
        "code": "python_not_found",
        "category": "system",
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    return 3


def suggestions():
    """What to start, or how to install what can be started; with this machine's paths."""
    environment = os.path.join(FOLDER, ".venv")
    own, launcher = quoted(python_in(environment)), quoted(os.path.abspath(__file__))
    is_new_enough = sys.version_info >= OLDEST
    if is_new_enough and sys.prefix != sys.base_prefix:
        return ["Install vidkit for it: %s -m pip install %s" % (quoted(sys.executable), source())]
    if is_program(python_in(environment)):
        return ["Start it with vidkit's own Python: %s %s" % (own, launcher)]
    python = sys.executable if is_new_enough else newer_python()
    if not python:
        return ["Install Python %d.%d or newer: https://www.python.org/downloads/" % OLDEST]
    return [
        "Make an environment for vidkit: %s -m venv %s" % (quoted(python), quoted(environment)),
        "Install vidkit there: %s -m pip install %s" % (own, source()),
        "Then start: %s %s" % (own, launcher),
    ]


def python_in(environment):
    """The Python of a virtual environment."""
    return os.path.join(environment, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


def newer_python():
    """A Python of PATH that is new enough; None when there is none."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for minor in (13, 12, 11):
            path = os.path.join(folder, "python3.%d" % minor)
            if folder and is_program(path):
                return path
    return None


def is_program(path):
    return os.path.isfile(path) and os.access(path, os.X_OK)


def source():
    """Where pip finds vidkit."""
    return quoted(FOLDER) if os.path.isfile(os.path.join(FOLDER, "pyproject.toml")) else "FOLDER_OF_VIDKIT"


def quoted(path):
    return '"%s"' % path if " " in path else path


if __name__ == "__main__":
    raise SystemExit(main())
