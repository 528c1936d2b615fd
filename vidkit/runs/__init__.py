"""Runs: folders named by what they hold, done when their manifest is in place, and never made twice.

A run is the folder `<root>/<first 16 of its content key>/` with the clip, its sidecar, its poster, the executed
notebook and, written last, `manifest.json`: its presence means *done*. A run that failed has `failure.json` instead.

What a file system that several machines share must give: a rename within a folder that is atomic and, with what was
written before it, seen by the others once they hold the lock; and `flock` that reaches all machines and ends with the
process that holds it (NFS 4, mounted with `lookupcache=positive`; Lustre with `-o flock`; CephFS, GPFS, SMB 3). Where
there is none, each machine needs a root of its own. Clocks are only told, never compared.
"""

from vidkit.runs.claims import Claim, claim, clean
from vidkit.runs.folder import (
    RunFolder,
    describe_error,
    read_failure,
    read_manifest,
    run_folders,
    write_failure,
    write_manifest,
)
from vidkit.runs.keys import Seen, content_key, content_keys
from vidkit.runs.manifest import Manifest
from vidkit.runs.results import table, write_table

__all__ = [
    "Claim",
    "Manifest",
    "RunFolder",
    "Seen",
    "claim",
    "clean",
    "content_key",
    "content_keys",
    "describe_error",
    "read_failure",
    "read_manifest",
    "run_folders",
    "table",
    "write_failure",
    "write_manifest",
    "write_table",
]
