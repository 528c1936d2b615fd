"""A real JupyterLab in a real Chromium: its own server, settings and data folder, and nothing from any network.

with jupyterlab(folder) as lab:
    lab.add("panel.ipynb", Path("notebooks/control_panel.ipynb"))
    with lab.opened(browser, "panel.ipynb") as notebook:
        notebook.run_all()
        assert notebook.run_cell("1 + 1") == "2"
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nbformat
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

REPOSITORY = Path(__file__).parents[1]
READY_SECONDS = 90  # a page of JupyterLab with its kernel takes 5 to 10 s on two cores, more when they are shared

#: milliseconds for which a page is waited for: its kernel answers while it computes, on cores that others use too
PATIENCE = 20_000

# JupyterLab says these itself, without anything of ours in the page.
_NOISE = (
    r"^Failed to load resource: .* 404 .*/api/(contents|workspaces|me)\b",  # asked for before it is made
    r"^Failed to load resource: .* 404 .*/lab/api/(workspaces|translations)\b",
    r"ERR_UNKNOWN_URL_SCHEME attachment:",  # shown before it finds the picture in the cell itself
    r"^WebSocket connection to 'ws://127\.0\.0\.1.*' failed: WebSocket is closed before the connection is established",
)

_SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false", "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},  # a test saves when it means to
    "completer-extension/manager": {"autoCompletion": False},
}

_RUNNING = (
    "window.jupyterapp.shell.currentWidget.content.widgets"
    ".some((cell) => cell.model.type === 'code' && cell.model.executionState === 'running')"
)
_KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"


@dataclass
class JupyterLab:
    """A running server. `root` is the folder it shows, `home` its kernels' `VIDKIT_HOME`, `log` what it said."""

    root: Path
    home: Path
    log: Path
    url: str
    token: str

    def add(self, name: str, source: Path | Sequence[str]) -> Path:
        """Put a notebook into the root: a copy of a file, or one of these cells. Returns its path there."""
        target = self.root / name
        if isinstance(source, Path):
            shutil.copyfile(source, target)
        else:
            notebook = nbformat.v4.new_notebook(
                metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
            )
            notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in source]
            nbformat.write(notebook, target)
        return target

    def trust(self, name: str) -> None:
        """As its user does with `jupyter trust`: HTML that was made elsewhere plays no videos otherwise."""
        path = self.root / name
        NotebookNotary(data_dir=str(self.root.parent / "data")).sign(nbformat.read(path, as_version=4))

    def forget(self) -> None:
        """End all kernels and remove what they left in their home: as if the server had just been started."""
        address, headers = f"{self.url}api/sessions", {"Authorization": f"token {self.token}"}
        for session in httpx.get(address, headers=headers).json():
            httpx.delete(f"{address}/{session['id']}", headers=headers, timeout=30).raise_for_status()
        shutil.rmtree(self.home)
        self.home.mkdir()

    @contextmanager
    def opened(
        self, browser: Browser, name: str, *, width: int = 1400, height: int = 900, strict: bool = True
    ) -> Iterator[Notebook]:
        """The notebook in a browser context of its own, its kernel idle and the file browser folded away.

        The kernel outlives the page: open the same notebook again and it is the one that ran before.
        On leaving: no error on the console (unless not `strict`), and nothing was asked of any other machine.
        """
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        problems: list[str] = []
        requests: list[str] = []
        page = context.new_page()
        page.on(
            "console",
            lambda said: (
                problems.append(f"{said.text} {said.location.get('url', '')}") if said.type == "error" else None
            ),
        )
        page.on("pageerror", lambda error: problems.append(f"{error} {error.stack}"))
        context.on("request", lambda request: requests.append(request.url))
        page.goto(f"{self.url}lab/tree/{name}?token={self.token}&reset")
        notebook = Notebook(self, name, page, context, problems)
        notebook.wait_for_kernel()
        page.evaluate("window.jupyterapp.shell.collapseLeft()")
        try:
            yield notebook
        finally:
            context.close()
        strangers = [url for url in requests if not url.startswith((self.url, "data:", "blob:", "attachment:"))]
        assert not strangers, strangers
        if strict:
            assert not notebook.problems(), notebook.problems()


@dataclass
class Notebook:
    """An open notebook, and what a person does with it. `page` and `context` are playwright's."""

    lab: JupyterLab
    name: str
    page: Page
    context: BrowserContext
    said: list[str] = field(repr=False)

    @property
    def path(self) -> Path:
        return self.lab.root / self.name

    def problems(self) -> list[str]:
        """The console's errors so far, without JupyterLab's own."""
        return [text for text in self.said if not any(re.search(noise, text) for noise in _NOISE)]

    # ---- the kernel

    def wait_for_kernel(self) -> None:
        """Until the kernel is idle and the notebook shown."""
        self.page.wait_for_function(f"{_KERNEL}?.status === 'idle'", timeout=READY_SECONDS * 1000)
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")

    def kernel_id(self) -> str:
        return str(self.page.evaluate(f"{_KERNEL}.id"))

    def restart_kernel(self) -> None:
        self.page.evaluate(f"async () => {{ await {_KERNEL}.restart(); }}")
        self.wait_for_kernel()

    def run_all(self, timeout: float = 120) -> None:
        """Run every cell and wait until the last has ended; fails when one raised.

        `timeout`: seconds.
        """
        self._command("notebook:run-all-cells", timeout=timeout)
        self.wait_until_run(timeout)
        errors = [output for cell in self._cells() for output in cell["outputs"] if output["output_type"] == "error"]
        assert not errors, "\n".join(f"{error['ename']}: {error['evalue']}" for error in errors)

    def is_running(self) -> bool:
        """Whether a cell is running or waits to be run. The kernel's own status does not say: subshells share it."""
        return bool(self.page.evaluate(_RUNNING))

    def wait_until_run(self, timeout: float = 120) -> None:
        """Until no cell is running or waits to be run. `timeout`: seconds."""
        self.page.wait_for_function(f"!({_RUNNING})", timeout=timeout * 1000)

    def run_cell(self, text: str, timeout: float = 60, *, wait: bool = True) -> str:
        """Run a new cell at the end and return what it printed and its value, as text; fails when it raised.

        Without `wait` it is only started, and "" is returned.
        """
        self.page.evaluate(
            """(text) => {
                const { content } = window.jupyterapp.shell.currentWidget;
                const shared = content.model.sharedModel;
                const index = shared.cells.length;
                shared.insertCell(index, { cell_type: 'code', source: text, metadata: {} });
                content.activeCellIndex = index;
            }""",
            text,
        )
        self._command("notebook:run-cell", timeout=timeout, wait=wait)
        if not wait:
            return ""
        outputs = self._cells()[-1]["outputs"]
        errors = [output for output in outputs if output["output_type"] == "error"]
        assert not errors, f"{errors[0]['ename']}: {errors[0]['evalue']}\n" + "\n".join(errors[0]["traceback"])
        return "".join(map(_text, outputs)).strip()

    # ---- the page

    @property
    def outputs(self) -> Locator:
        """What the cells show: search here, since JupyterLab has buttons and texts of its own."""
        return self.page.locator(".jp-OutputArea-output")

    def wait_for(self, text: str | re.Pattern[str], timeout: float = 20) -> Locator:
        """The first thing in the notebook's outputs that shows this text, once it does. `timeout`: seconds."""
        found = self.outputs.get_by_text(text).first
        found.wait_for(timeout=timeout * 1000)
        return found

    def theme(self, name: str) -> None:
        """ "light" or "dark": JupyterLab's own themes."""
        title = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[name]
        self._command("apputils:change-theme", {"theme": title})
        is_light = "true" if name == "light" else "false"
        self.page.wait_for_function("(light) => document.body.dataset.jpThemeLight === light", arg=is_light)

    def screenshot(self, name: str, of: Locator | None = None) -> list[Path]:
        """Pictures `NAME-light.png` and `NAME-dark.png` of the page, or of one element, among the test's artefacts."""
        paths = []
        for theme in ("dark", "light"):  # ends as it began
            self.theme(theme)
            self.page.wait_for_timeout(300)  # a theme's colours come with a style sheet
            path = artefacts() / f"{name}-{theme}.png"
            (of or self.page).screenshot(path=path)
            paths.append(path)
        return paths

    # ---- the file

    def open(self, name: str) -> None:
        """Another notebook of the root, in the same page; from then on it is the one that is worked with."""
        self._command("docmanager:open", {"path": name})
        self.page.wait_for_function(
            "(name) => window.jupyterapp.shell.currentWidget?.context?.path === name"
            " && window.jupyterapp.shell.currentWidget.node.querySelector('.jp-Cell')",
            arg=name,
        )
        self.name = name

    def save(self) -> nbformat.NotebookNode:
        """Save the notebook, and read it from the disk."""
        self._command("docmanager:save")
        self.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
        return self.on_disk()

    def on_disk(self) -> nbformat.NotebookNode:
        return nbformat.read(self.path, as_version=4)

    def _command(
        self, command: str, arguments: dict[str, Any] | None = None, timeout: float = 20, *, wait: bool = True
    ) -> None:
        """One of JupyterLab's commands; with `wait` until it has ended, or raised. `timeout`: seconds."""
        self.page.evaluate(
            """([command, arguments]) => {
                window.commandEnded = false;
                window.jupyterapp.commands.execute(command, arguments).finally(() => { window.commandEnded = true; });
            }""",
            [command, arguments or {}],
        )
        if wait:
            self.page.wait_for_function("() => window.commandEnded", timeout=timeout * 1000)

    def _cells(self) -> list[dict[str, Any]]:
        cells: list[dict[str, Any]] = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
        )
        return [cell for cell in cells if cell["cell_type"] == "code"]


@contextmanager
def jupyterlab(folder: Path, **environment: str) -> Iterator[JupyterLab]:
    """A server of this Python's JupyterLab whose root, settings, kernels' data and log lie in `folder`.

    `environment`: more variables for the server and its kernels.
    """
    places = {name: folder / name for name in ("root", "home", "config", "data", "runtime", "settings", "workspaces")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    for name, settings in _SETTINGS.items():
        path = places["settings"] / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    token = secrets.token_hex(16)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command_line(places["root"]),
            cwd=places["root"],
            env=os.environ | _environment(places, token) | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield JupyterLab(places["root"], places["home"], log, _address(process, places["runtime"], log), token)
        finally:
            _stop(process)


def artefacts() -> Path:
    """Where screenshots are kept: VIDKIT_TEST_ARTEFACTS, else a folder of the system's temporary one."""
    folder = Path(os.environ.get("VIDKIT_TEST_ARTEFACTS") or Path(tempfile.gettempdir()) / "vidkit-test-artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _command_line(root: Path) -> list[str]:
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": "0",
        "ServerApp.root_dir": str(root),
        "ServerApp.open_browser": "False",
        "ServerApp.allow_root": "True",
        "LabApp.expose_app_in_browser": "True",  # window.jupyterapp: the page's commands by name
        "LabApp.extension_manager": "readonly",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]


def _environment(places: dict[str, Path], token: str) -> dict[str, str]:
    return {
        "JUPYTER_CONFIG_DIR": str(places["config"]),
        "JUPYTER_DATA_DIR": str(places["data"]),
        "JUPYTER_RUNTIME_DIR": str(places["runtime"]),
        "JUPYTERLAB_SETTINGS_DIR": str(places["settings"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(places["workspaces"]),
        "IPYTHONDIR": str(places["config"] / "ipython"),
        "JUPYTER_TOKEN": token,
        "VIDKIT_HOME": str(places["home"]),
        "PYTHONPATH": str(REPOSITORY),
    }


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Where the server listens, from the file that it writes when it does."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            if text := file.read_text(encoding="utf-8"):
                return f"http://127.0.0.1:{json.loads(text)['port']}/"
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its kernels; what is left of its process group after that is killed."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _text(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return "".join(output["text"])
    return "".join(output.get("data", {}).get("text/plain", ""))
