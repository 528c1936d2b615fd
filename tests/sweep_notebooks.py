"""Small notebooks for the tests of the engine, and ways to run them and to read what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbformat import NotebookNode

WARM = "vidkit-warm"
KERNELSPEC = {"name": "python3", "language": "python", "display_name": "Python 3"}


def notebook(*cells: str, kernel: str = "python3") -> NotebookNode:
    """A notebook of code cells; a source that begins with `# parameters` gets papermill's tag."""
    nodes = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(cells)]
    for node in nodes:
        if node.source.startswith("# parameters"):
            node.metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {**KERNELSPEC, "name": kernel}, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=nodes, metadata=metadata)


def run(*cells: str, engine: str | None = WARM, output: Path | None = None, **options: Any) -> NotebookNode:
    """Run these cells under papermill, without a progress bar unless asked for."""
    given = {"progress_bar": False, **options}
    return papermill.execute_notebook(notebook(*cells), output, engine_name=engine, **given)


def text_of(cell: NotebookNode) -> str:
    """What a cell printed, and its value."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def texts(node: NotebookNode) -> list[str]:
    return [text_of(cell).strip() for cell in node.cells if cell.cell_type == "code"]
