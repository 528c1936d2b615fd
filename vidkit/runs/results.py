"""All runs of a folder as a table, for pandas, spreadsheets and whatever reads Parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vidkit.errors import InputError
from vidkit.files import typed_write_errors, written_whole
from vidkit.params import GenerationParams, canonical_name, choices_of, plain_type
from vidkit.paths import local_path, path_to_write
from vidkit.record import names_of_models
from vidkit.runs.folder import RunFolder, read_document, run_folders
from vidkit.runs.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

#: columns whose meaning does not come from the schema, with pandas' type of each; in the table's order
BEFORE: Final = {"key": "string", "status": "category"}
AFTER: Final = {
    "picture": "string",
    **{f"timing_{phase}": "float64" for phase in ("wait", "load", "encode", "denoise", "decode", "write")},
    **{f"timing_{phase}": "float64" for phase in ("metrics", "overhead", "total")},
    "peak_memory_gib": "float64",
    **dict.fromkeys(("motion", "flicker", "sharpness", "first_frame_psnr", "first_frame_ssim"), "float64"),
    **dict.fromkeys(("clip", "poster", "notebook"), "string"),
    "attempts": "Int64",
    **dict.fromkeys(("started", "finished", "notes"), "string"),
    **{f"error_{name}": "string" for name in ("code", "category", "message")},
}
STATUSES: Final = ("done", "failed", "damaged")
PLAIN_TYPES: Final = {int: "Int64", float: "float64", bool: "boolean", str: "string"}


def table(folder: str | Path) -> pd.DataFrame:
    """One row a run, by key: done, failed, or damaged (its manifest does not count; error_message names the file).

    Columns, all snake_case: key, status; the parameters of the request (models as their names, no paths); axes that are
    no parameters (`axis_NAME` where the name is another column's); picture; timing_* (seconds); peak_memory_gib; the
    metrics; clip, poster, notebook (paths that begin with `folder`); attempts, started, finished, notes; error_code,
    error_category, error_message. `attrs["axes"]` lists the axes' names.

    Raises:
        InputError: `invalid_value`, when there is no such folder.
    """
    import pandas as pd

    root = local_path(folder)
    if not root.is_dir():
        raise InputError("invalid_value", f"There is no folder {root}.", ["Give the folder that holds the runs"])
    rows, axes = [], dict[str, None]()
    for run in run_folders(root):
        manifest, problem = read_any(run)
        if manifest is not None:
            axes.update(dict.fromkeys(manifest.axes))
            rows.append(row_of(run, manifest))
        elif problem is not None:
            rows.append({"key": run.name, "status": "damaged", "error_message": problem})
    seen = {column for row in rows for column in row}
    parameters = [name for name in GenerationParams.model_fields if name in seen]
    own = [*BEFORE, *parameters, *AFTER]
    frame = pd.DataFrame(rows, columns=[*BEFORE, *parameters, *sorted(seen.difference(own)), *AFTER])
    typed = pd.DataFrame({name: typed_column(frame[name]) for name in frame.columns})
    typed.attrs["axes"] = list(axes)
    return typed


def read_any(run: RunFolder) -> tuple[Manifest | None, str | None]:
    """What a run says of itself; or why its manifest does not count; (None, None) while nothing stands."""
    manifest, problem = read_document(run, run.manifest, "done")
    if manifest is None:
        failure, failure_problem = read_document(run, run.failure, "failed")
        return failure, problem or failure_problem
    return manifest, None


def row_of(run: RunFolder, manifest: Manifest) -> dict[str, Any]:
    row: dict[str, Any] = {canonical_name(name): value for name, value in manifest.request.items()}
    row |= {canonical_name(name): named for name, named in names_of_models(manifest.models).items()}
    row |= {"key": manifest.key, "status": manifest.status, "seed": manifest.seed}
    for name, value in manifest.axes.items():
        if name in row and name in GenerationParams.model_fields:
            continue  # what was run stands in the request
        taken = name in BEFORE or name in AFTER
        row[f"axis_{name}" if taken else snake_case(name)] = value
    row["picture"] = ", ".join(picture.get("name", "") for picture in manifest.pictures) or None
    row |= {f"timing_{snake_case(phase)}": seconds for phase, seconds in manifest.timing.items()}
    row |= {snake_case(name): value for name, value in manifest.metrics.items()}
    row |= {role: str(run.path / name) for role, name in manifest.files.items()}
    row |= {name: getattr(manifest, name) for name in ("peak_memory_gib", "attempts", "started", "finished")}
    row["notes"] = " ".join(manifest.notes) or None
    error = manifest.error or {}
    return row | {f"error_{name}": error.get(name) for name in ("code", "category", "message")}


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def typed_column(column: Any) -> Any:
    """A pandas Series as the schema says; what that does not know as pandas finds it; what does not fit as text."""
    name = str(column.name)
    wanted = (BEFORE | AFTER).get(name)
    if name == "status":
        return categories(column, STATUSES)
    if name in GenerationParams.model_fields:
        info = GenerationParams.model_fields[name]
        if choices := choices_of(info):
            return categories(column, choices)
        wanted = PLAIN_TYPES[plain_type(info)]
    if wanted is None:
        found = column.convert_dtypes()
        return column.map(str, na_action="ignore").astype("string") if found.dtype == object else found
    try:
        return column.astype(wanted)
    except (TypeError, ValueError):
        return column.map(str, na_action="ignore").astype("string")


def categories(column: Any, known: Sequence[str]) -> Any:
    """The known values first, in their order; then what is found beside them."""
    import pandas as pd

    found = column.astype("string")
    others = sorted(set(found.dropna()).difference(known))
    return found.astype(pd.CategoricalDtype([*known, *others]))


def write_table(folder: str | Path, path: str | Path) -> Path:
    """Write `table(folder)` to a .csv or .parquet file, whole or not at all; it replaces an older one.

    Raises:
        InputError: `invalid_value`, for another suffix, or no such folder.
        SetupError: `output_not_writable`; CriticalError: `disk_full`.
    """
    target = path_to_write(path)
    suffix = target.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(
            "invalid_value",
            f"A table cannot be written as {suffix or 'a file without suffix'}: {target}.",
            ["Let the name end in .csv or .parquet"],
        )
    rows = table(folder)
    with typed_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as temporary:
            if suffix == ".csv":
                rows.to_csv(temporary, index=False)
            else:
                rows.to_parquet(temporary, index=False)
    return target
