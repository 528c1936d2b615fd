"""The warm engine, on real kernels: what stays from run to run, what is new, and what becomes of deaths and interrupts.

That it does for a notebook what papermill's own engine does is in test_sweep_engine_contract.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import papermill
import psutil
import pytest
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node, write_ipynb
from sweep_notebooks import notebook, run, texts

from vidkit.sweep import living
from vidkit.sweep.engine import shutdown_kernels, warm_kernel

PID = "import os; os.getpid()"
#: the first cell of a notebook that notes each attempt in the file ATTEMPTS; `attempt` counts from 1
COUNT_ATTEMPTS = """
from pathlib import Path
attempts = Path("attempts")
attempts.write_text((attempts.read_text() if attempts.exists() else "") + "x")
attempt = len(attempts.read_text())
"""
DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
REFUSE_TO_END = """
import time
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and sockets")


@pytest.fixture(autouse=True)
def no_kernels_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs in a folder of its own and ends its kernels."""
    monkeypatch.chdir(tmp_path)
    yield
    shutdown_kernels()


def pid_of_run() -> int:
    return int(texts(run(PID))[0])


def later(seconds: float, action: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def gone(pid: int, seconds: float) -> bool:
    """Whether this process ends within these seconds."""
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


# ---- what stays, what is new


def test_the_kernel_and_its_modules_stay_and_its_variables_go() -> None:
    first = run(PID, "import sys, types; sys.modules['marker'] = types.ModuleType('marker'); x = 1; x")
    second = run(PID, "'x' in globals(), 'marker' in __import__('sys').modules, 'os' in globals()")
    assert texts(first)[0] == texts(second)[0] == str(warm_kernel().pid)
    assert texts(second)[1] == "(False, True, True)"  # os: this notebook's own first cell


def test_cells_are_counted_from_one() -> None:
    for _ in range(2):
        assert [cell.execution_count for cell in run("1", "2", "3").cells] == [1, 2, 3]
    assert texts(run("In, Out"))[0] == "(['', 'In, Out'], {})"


def test_what_a_notebook_changed_is_as_in_a_new_kernel(tmp_path: Path) -> None:
    probe = """
        import os, sys, warnings
        import matplotlib.pyplot as plt
        print(os.getcwd(), sys.path, len(sys.argv), os.environ["PATH"], hasattr(sys, "last_value"))
        print(plt.get_fignums(), plt.rcParams["lines.linewidth"], plt.rcParams["backend"])
    """
    change = """
        import os, sys
        import matplotlib.pyplot as plt
        from ipywidgets import Widget, IntSlider
        slider = IntSlider()
        os.mkdir("elsewhere"); os.chdir("elsewhere")
        sys.path.insert(0, "/nowhere"); sys.argv.append("more"); os.environ["PATH"] = "/nowhere"
        plt.rcParams["lines.linewidth"] = 7; plt.figure(); sys.stdout = open(os.devnull, "w")
        get_ipython().events.register("post_run_cell", lambda result: print("called", file=sys.stderr))
    """
    widgets = "from ipywidgets.widgets import widget; print(len(widget._instances))"
    probe, change = textwrap.dedent(probe), textwrap.dedent(change)
    fresh = texts(run(probe, engine=None))
    with pytest.raises(PapermillExecutionError):
        run(change, "1 / 0")
    assert texts(run(probe)) == fresh
    assert texts(run(widgets)) == ["0"]


def test_every_run_shows_its_warnings(tmp_path: Path) -> None:
    """Python shows a warning of a library once in a process; each notebook is a record of its own."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "warner.py").write_text("import warnings\ndef warn(): warnings.warn('mind this')\n")
    cell = f"import sys; sys.path.append({str(tmp_path / 'library')!r}); import warner; warner.warn()"
    for _ in range(2):
        assert "mind this" in texts(run(cell))[0]


def test_memory_of_a_run_is_given_back() -> None:
    """Cycles of the last run go before the next; one that an imported module lets go goes when garbage is collected."""
    make = """
        import gc, sys, types, weakref
        gc.disable()
        class Thing: pass
        def cycle():
            thing = Thing(); thing.me = thing
            return thing
        module = sys.modules["keeper"] = types.ModuleType("keeper")
        module.kept, mine = cycle(), cycle()
        module.refs = weakref.ref(module.kept), weakref.ref(mine)
    """
    run(textwrap.dedent(make))
    look = "import gc, keeper; [ref() is not None for ref in keeper.refs]"
    assert texts(run(look, "keeper.kept = None")) == ["[True, False]", ""]
    assert texts(run(look, "gc.collect(); keeper.refs[0]()")) == ["[True, False]", ""]


def test_modules_beside_the_notebook_are_those_of_its_own_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "package").mkdir(parents=True)
        (tmp_path / name / "helper.py").write_text(f"name = {name!r}")
        (tmp_path / name / "package" / "__init__.py").touch()
        (tmp_path / name / "package" / "part.py").write_text(f"name = {name!r}")
    cell = "import helper, package.part; helper.name, package.part.name"
    pids = set()
    for name in ("one", "two", "one"):
        pid, found = texts(run(PID, cell, cwd=str(tmp_path / name)))
        pids.add(pid)
        assert found == f"('{name}', '{name}')"
    assert len(pids) == 1


def test_another_environment_gets_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pid_of_run()
    monkeypatch.setenv("VIDKIT_TEST_VARIABLE", "seen")
    pid, seen = texts(run(PID, "os.environ['VIDKIT_TEST_VARIABLE']"))
    assert seen == "'seen'"
    assert int(pid) != first
    assert gone(first, 5)


def test_other_languages_are_left_to_papermill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "kernels" / "other"
    spec.mkdir(parents=True)
    command = '{"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], '
    (spec / "kernel.json").write_text(command + '"display_name": "Other", "language": "other"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    nodes = [
        papermill.execute_notebook(notebook(PID, kernel="other"), None, engine_name="vidkit-warm", progress_bar=False)
        for _ in range(2)
    ]
    assert texts(nodes[0]) != texts(nodes[1])


# ---- many runs, many threads


def descriptors(process: int | str | None = "self") -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_sixty_runs_use_no_more_descriptors_than_three() -> None:
    def counts() -> tuple[int, int]:
        return descriptors(), descriptors(warm_kernel().pid)

    for _ in range(3):
        run("1")
    before = counts()
    for _ in range(57):
        run("1")
    assert counts() == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_ended_kernels_leave_no_descriptors() -> None:
    counts = []
    for _ in range(3):
        run("1")
        shutdown_kernels()
        counts.append(descriptors())
    assert counts[0] == counts[-1]


def test_threads_wait_for_one_another() -> None:
    cell = "import time; start = time.time(); time.sleep(0.5); print(os.getpid(), start, time.time())"
    lines: list[str] = []
    threads = [threading.Thread(target=lambda: lines.append(texts(run("import os", cell))[1])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = sorted((float(start), float(end), pid) for pid, start, end in (line.split() for line in lines))
    assert len(runs) == 3
    assert len({pid for _, _, pid in runs}) == 1
    assert all(before[1] <= after[0] for before, after in pairwise(runs))


# ---- deaths


@posix
def test_a_kernel_that_dies_in_mid_run_is_replaced_and_the_notebook_run_again(tmp_path: Path) -> None:
    out = tmp_path / "out.ipynb"
    node = run(COUNT_ATTEMPTS, f"if attempt == 1:\n    {DIE}", "attempt", output=out, progress_bar=True)
    assert texts(node)[2] == "2"
    assert (tmp_path / "attempts").read_text() == "xx"
    assert [cell.execution_count for cell in node.cells] == [1, 2, 3]
    assert {cell.metadata.papermill.status for cell in node.cells} == {"completed"}
    assert texts(node) == texts(load_notebook_node(str(out)))


@posix
def test_nothing_of_the_first_try_is_left_in_the_notebook(tmp_path: Path) -> None:
    cells = [COUNT_ATTEMPTS, "if attempt == 2:\n    1 / 0", "'first try'", f"if attempt == 1:\n    {DIE}"]
    with pytest.raises(PapermillExecutionError):
        run(*cells, output=tmp_path / "out.ipynb")
    cells = [cell for cell in load_notebook_node(str(tmp_path / "out.ipynb")).cells if cell.cell_type == "code"]
    assert [cell.metadata.papermill.status for cell in cells] == ["completed", "failed", "pending", "pending"]
    assert [cell.execution_count for cell in cells] == [1, 2, None, None]
    assert cells[2].outputs == []


@posix
def test_the_second_death_is_raised(tmp_path: Path) -> None:
    with pytest.raises(DeadKernelError):
        run(COUNT_ATTEMPTS, DIE)
    assert (tmp_path / "attempts").read_text() == "xx"
    assert texts(run("1 + 1")) == ["2"]


@posix
def test_a_kernel_found_dead_is_replaced(tmp_path: Path) -> None:
    first = pid_of_run()
    os.kill(first, signal.SIGKILL)
    assert int(texts(run(PID, COUNT_ATTEMPTS))[0]) != first
    assert (tmp_path / "attempts").read_text() == "x"


@posix
def test_a_kernel_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "RENEW_SECONDS", 1.0)
    first = pid_of_run()
    os.kill(first, signal.SIGSTOP)
    assert pid_of_run() != first
    assert gone(first, 1)


# ---- timeouts and interrupts


def test_a_timeout_ends_the_cell_and_the_kernel_lives_on(tmp_path: Path) -> None:
    first = pid_of_run()
    start = time.monotonic()
    with pytest.raises(CellTimeoutError):
        run("import time; time.sleep(60)", execution_timeout=1, output=tmp_path / "out.ipynb")
    assert time.monotonic() - start < 5
    assert load_notebook_node(str(tmp_path / "out.ipynb")).cells[0].outputs == []  # as papermill leaves it
    assert texts(run(PID, "print('seen')")) == [str(first), "seen"]


@posix
def test_a_cell_that_ignores_its_timeout_costs_the_kernel() -> None:
    first = pid_of_run()
    with pytest.raises(CellTimeoutError):
        run(REFUSE_TO_END, execution_timeout=1)
    assert gone(first, 1)
    assert pid_of_run() != first


@posix
def test_ctrl_c_interrupts_the_kernel_and_the_next_run_works(tmp_path: Path) -> None:
    first = pid_of_run()
    cell = "import time\ntry:\n    time.sleep(60)\nfinally:\n    open('cleaned up', 'w').close()"
    later(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(cell)
    assert time.monotonic() - start < 4
    assert (tmp_path / "cleaned up").exists()
    assert texts(run(PID, "print('seen')")) == [str(first), "seen"]


@posix
def test_ctrl_c_kills_a_kernel_that_ignores_it(tmp_path: Path) -> None:
    first = pid_of_run()
    later(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(COUNT_ATTEMPTS, REFUSE_TO_END)
    assert gone(first, 1)
    assert (tmp_path / "attempts").read_text() == "x"  # no second try
    assert pid_of_run() != first


def test_stop_from_another_thread() -> None:
    first = pid_of_run()
    later(1.5, warm_kernel().stop)
    with pytest.raises(PapermillExecutionError) as caught:
        run("import time; time.sleep(60)")
    assert caught.value.ename == "KeyboardInterrupt"
    assert pid_of_run() == first


def test_a_caller_interrupted_while_it_waits_for_its_turn_stops_no_one_else(tmp_path: Path) -> None:
    """The main thread's run waits behind another thread's: Ctrl-C gives it up, and the other goes on."""
    found: list[str] = []
    other = threading.Thread(target=lambda: found.extend(texts(run("import time; time.sleep(3); 'finished'"))))
    other.start()
    time.sleep(1.5)
    later(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(COUNT_ATTEMPTS)
    other.join()
    assert found == ["'finished'"]
    assert not (tmp_path / "attempts").exists()


# ---- the connection, and the end


@posix
def test_the_kernel_is_reached_over_private_sockets() -> None:
    # a forked child prints as well: ipykernel has a TCP port of its own for that
    cell = "import os, sys\nif os.fork() == 0:\n    print('from a child', flush=True); os._exit(0)\nos.wait()[1]"
    assert "from a child" in texts(run(cell, "import time; time.sleep(0.5)"))[0]
    process = psutil.Process(warm_kernel().pid)
    connections = process.net_connections(kind="all")
    assert [one for one in connections if one.family in (socket.AF_INET, socket.AF_INET6)] == []
    folder = {Path(one.laddr).parent for one in connections if one.laddr}.pop()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {"kernel.json", "fork", "k-1", "k-2", "k-3", "k-4", "k-5"}
    shutdown_kernels()
    assert not folder.exists()


@posix
def test_long_paths_and_systems_without_such_sockets_use_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "LONGEST_SOCKET_PATH", 8)
    first = pid_of_run()
    assert pid_of_run() == first
    families = {one.family for one in psutil.Process(first).net_connections(kind="all")}
    assert socket.AF_INET in families


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from sweep_notebooks import run
run("import os, time; from pathlib import Path; Path('pid').write_text(str(os.getpid()))", {cell!r})
print("finished")
"""


def start_script(folder: Path, cell: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process that runs this cell on a warm kernel, and that kernel's process."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), cell=cell)
    process = subprocess.Popen([sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE)
    file = folder / "pid"
    while not file.exists() or not file.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    return process, int(file.read_text())


def test_kernels_end_with_their_process(tmp_path: Path) -> None:
    cell = "import atexit; atexit.register(lambda: Path('said goodbye').touch()); None"
    process, kernel = start_script(tmp_path, cell)
    assert process.communicate(timeout=30)[0] == b"finished\n"
    assert gone(kernel, 1)
    assert (tmp_path / "said goodbye").exists()


@posix
@pytest.mark.parametrize("cell", ["time.sleep(60)", "while True: pass"], ids=["waiting", "busy"])
def test_kernels_end_when_their_process_is_killed(tmp_path: Path, cell: str) -> None:
    process, kernel = start_script(tmp_path, cell)
    process.kill()
    process.communicate()
    assert gone(kernel, 10)


@posix
def test_a_forked_child_leaves_the_kernels_to_its_parent() -> None:
    first, start = pid_of_run(), time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            shutdown_kernels()
            own = pid_of_run()
            shutdown_kernels()
            os._exit(0 if own != first else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert time.monotonic() - start < 15
    assert pid_of_run() == first


def test_papermill_finds_the_engine(tmp_path: Path) -> None:
    write_ipynb(notebook("# parameters\nx = 1", "x + 1"), str(tmp_path / "in.ipynb"))
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "-p", "x", "41", "--engine", "vidkit-warm"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert texts(load_notebook_node(str(tmp_path / "out.ipynb")))[-1] == "42"


@pytest.mark.parametrize("first", ["vidkit.sweep.engine", "papermill"])
def test_engine_and_papermill_can_be_imported_in_any_order(first: str) -> None:
    """papermill loads its engines while it is itself being imported."""
    code = (
        f"import {first}\n"
        "from vidkit.sweep.engine import WarmEngine\n"
        "from papermill.engines import papermill_engines\n"
        "assert papermill_engines.get_engine('vidkit-warm') is WarmEngine\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
