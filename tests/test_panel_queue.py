from __future__ import annotations

import json
import logging
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import cold, saved
from panel_runs import process, request, wait_until
from run_folders import files, heard, kill

from vidkit.errors import InputError
from vidkit.panel.jobs import Job, with_absolute_paths
from vidkit.panel.queue import JobQueue
from vidkit.panel.queue_file import QUEUE_FILES, Kept, QueueFile
from vidkit.params import GenerationParams
from vidkit.runs import run_folders

pytestmark = pytest.mark.usefixtures("no_warm_pipeline")


class Panel:
    """Queues over one root and one folder, and what their listeners heard."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.root, self.folder = folder / "runs", folder / "panel"
        self.image, self.model = saved(folder), model
        self.heard: list[tuple[str, str]] = []
        self.queues: list[JobQueue] = []

    def queue(self, *, threaded: bool = True) -> JobQueue:
        queue = JobQueue(self.root, self.folder, threaded=threaded)
        queue.listen(lambda job: self.heard.append((job.id, job.state)))
        self.queues.append(queue)
        return queue

    def request(self, seed: int = 7, **more: object) -> GenerationParams:
        return request(self.model, self.image, seed=seed, **more)

    def long(self, seed: int = 1) -> GenerationParams:
        """About ten seconds."""
        return self.request(seed, num_frames=6, num_inference_steps=200)

    def kept(self) -> list[int]:
        """Seeds of all requests on disk."""
        contents = [json.loads(file.read_text()) for file in sorted(self.folder.glob(QUEUE_FILES))]
        return [job["request"]["seed"] for content in contents for job in content["jobs"]]


@pytest.fixture
def panel(tmp_path: Path, tiny_svd_folder: Path) -> Iterator[Panel]:
    panel = Panel(tmp_path, tiny_svd_folder)
    yield panel
    for queue in panel.queues:
        queue.close()


def started(queue: JobQueue, job: Job) -> None:
    wait_until(lambda: job.progress is not None and job.progress.step is not None)


def seeds(jobs: list[Job]) -> list[int]:
    return [job.params.seed for job in jobs]


# --- running ---------------------------------------------------------------------------------------------------------


def test_jobs_run_in_order_in_a_thread_and_listeners_hear_of_it(panel: Panel) -> None:
    queue = panel.queue()
    threads = set()
    stop = queue.listen(lambda job: threads.add(threading.current_thread().name))
    jobs = [queue.submit(panel.request(seed)) for seed in (1, 2, 1)]
    wait_until(lambda: all(job.is_over for job in jobs))
    assert [job.state for job in jobs] == ["done", "done", "known"]
    assert jobs[0].run == jobs[2].run
    assert jobs[0].run is not None
    assert jobs[0].run.is_done()
    assert jobs[0].seconds
    assert jobs[0].seconds > 0
    assert len(run_folders(panel.root)) == 2
    assert seeds(queue.jobs()) == [1, 2, 1]
    assert queue.jobs()[0] is jobs[2]  # newest first
    states = [state for id_, state in panel.heard if id_ == jobs[1].id]
    assert [states[0], states[-1]] == ["queued", "done"]
    assert states.count("running") > 5
    assert panel.kept() == []
    assert "vidkit queue" in threads

    stop()
    threads.clear()
    queue.submit(panel.request(1))
    wait_until(lambda: not any(job.state in ("queued", "running") for job in queue.jobs()))
    assert not threads


def test_a_drawn_seed_is_shown_while_queued(panel: Panel) -> None:
    queue = panel.queue(threaded=False)
    first, second = (queue.submit(panel.request(-1)) for _ in range(2))
    assert 0 <= first.params.seed != second.params.seed >= 0


def test_a_preview_is_there_while_it_runs_and_gone_after(panel: Panel) -> None:
    queue = panel.queue()
    shapes = []
    queue.listen(lambda job: shapes.append(job.preview.shape) if job.preview is not None else None)
    job = queue.submit(panel.request(num_frames=3, num_inference_steps=3))
    wait_until(lambda: job.is_over)
    assert shapes[0] == (3, 8, 8, 3)
    assert job.preview is None


def test_cancel_takes_less_than_a_step_and_the_next_job_runs(panel: Panel) -> None:
    queue = panel.queue()
    long = queue.submit(panel.long())
    after = queue.submit(panel.request(2))
    started(queue, long)
    steps: list[int] = []
    queue.listen(
        lambda job: steps.append(job.progress.step) if job is long and job.progress and job.progress.step else None
    )
    wait_until(lambda: len(set(steps)) > 1)
    queue.cancel(long.id)
    reached = max(steps)
    assert long.cancelling or long.state == "cancelled"
    wait_until(lambda: long.state == "cancelled")
    # told of are some steps only: one more may be, of which nothing was left to compute
    assert len({step for step in steps if step > reached}) <= 1
    wait_until(lambda: after.is_over)
    assert after.state == "done"
    assert len(run_folders(panel.root)) == 1


def test_nothing_blocks_while_a_job_runs(panel: Panel) -> None:
    queue = panel.queue()
    long = queue.submit(panel.long())
    started(queue, long)
    began = time.monotonic()
    job = queue.submit(panel.request(2))
    queue.move(job.id, -1)
    queue.pause()
    queue.remove(job.id)
    queue.jobs()
    assert time.monotonic() - began < 0.5
    assert long.state == "running"
    queue.cancel(long.id)


def test_queued_jobs_are_moved_and_removed_and_cancelled(panel: Panel) -> None:
    queue = panel.queue(threaded=False)
    jobs = [queue.submit(panel.request(seed)) for seed in range(5)]
    queue.move(jobs[3].id, -2)
    queue.move(jobs[0].id, 99)
    assert seeds(queue.jobs()) == panel.kept() == [3, 1, 2, 4, 0]
    queue.move(jobs[0].id, -99)
    queue.remove(jobs[3].id)
    queue.cancel(jobs[2].id)
    assert [(job.params.seed, job.state) for job in queue.jobs()] == [
        (0, "queued"),
        (1, "queued"),
        (4, "queued"),
        (2, "cancelled"),
    ]
    assert panel.kept() == [0, 1, 4]
    queue.remove(jobs[2].id)
    for nothing in (queue.cancel, queue.remove, lambda id_: queue.move(id_, 1)):
        nothing("no such id")
    assert seeds(queue.jobs()) == [0, 1, 4]


def test_a_paused_queue_starts_nothing_until_it_is_resumed(panel: Panel) -> None:
    queue = panel.queue()
    queue.pause()
    job = queue.submit(panel.request())
    time.sleep(0.3)
    assert (job.state, queue.paused) == ("queued", True)
    queue.resume()
    wait_until(lambda: job.is_over)
    assert not queue.paused


# --- failing ---------------------------------------------------------------------------------------------------------


def test_a_failed_job_has_its_typed_error_and_the_next_one_runs(panel: Panel) -> None:
    queue = panel.queue()
    bad = queue.submit(panel.request(width=999))
    gone = queue.submit(panel.request().replace(image_path=str(panel.image.with_name("none.png"))))
    good = queue.submit(panel.request())
    wait_until(lambda: good.is_over)
    assert [job.state for job in (bad, gone, good)] == ["failed", "failed", "done"]
    assert bad.error is not None
    assert bad.error.code == "invalid_size"
    assert bad.error.concerns == ("width",)
    assert bad.error.suggestions[0].changes["width"] % 8 == 0  # type: ignore[attr-defined]
    assert gone.error is not None
    assert gone.error.code == "image_not_found"
    assert bad.error.__traceback__ is None  # or it would keep a clip's frames in memory


def test_what_has_no_name_is_an_internal_error_and_logged(panel: Panel, caplog: pytest.LogCaptureFixture) -> None:
    """Something that no code of ours expects: a folder where the report of a failure would stand."""
    queue = panel.queue()

    def spoil(job: Job) -> None:
        for run in run_folders(panel.root):
            run.failure.mkdir(exist_ok=True)

    stop = queue.listen(spoil)
    with caplog.at_level(logging.ERROR, "vidkit"):
        spoilt = queue.submit(panel.request(1))
        wait_until(lambda: spoilt.is_over)
    stop()
    good = queue.submit(panel.request(2))
    wait_until(lambda: good.is_over)
    assert spoilt.state == "failed"
    assert spoilt.error is not None
    assert spoilt.error.code == "internal_error"
    assert any(record.exc_info for record in caplog.records)
    assert good.state == "done"


def test_a_listener_that_fails_is_logged_and_the_job_goes_on(panel: Panel, caplog: pytest.LogCaptureFixture) -> None:
    queue = panel.queue()
    queue.listen(lambda job: 1 / 0)  # type: ignore[arg-type, return-value]
    job = queue.submit(panel.request())
    wait_until(lambda: job.is_over)
    assert job.state == "done"
    assert "a listener of the queue failed" in caplog.text


def test_a_full_disk_fails_the_job_and_leaves_nothing(panel: Panel) -> None:
    """A limit on the size of files: the queue's file fits, the clip does not."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    code = """
    import resource
    queue = JobQueue(root, folder, threaded=False)
    job = queue.submit(requests[0])
    queue.run_here()
    tell(job.state, job.error.code, [path.name for path in root.iterdir()])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again = queue.submit(requests[0])
    queue.run_here()
    tell(again.state)
    """
    with process(panel.root, panel.folder, [panel.request()], code, preexec_fn=small_files) as running:
        assert heard(running) == "failed disk_full ['.locks']"
        assert heard(running) == "done"


def test_a_request_that_cannot_be_kept_is_refused(panel: Panel) -> None:
    code = """
    import resource
    from vidkit.errors import CriticalError
    queue = JobQueue(root, folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        queue.submit(requests[0])
    except CriticalError as error:
        tell(error.code, queue.jobs())
    """
    with process(panel.root, panel.folder, [panel.request()], code) as running:
        assert heard(running) == "disk_full []"


# --- surviving -------------------------------------------------------------------------------------------------------


def test_a_killed_process_loses_no_request_and_another_takes_them_over(panel: Panel) -> None:
    code = """
    queue = JobQueue(root, folder)
    jobs = [queue.submit(one) for one in requests]
    while jobs[0].progress is None or jobs[0].progress.step is None:
        time.sleep(0.01)
    tell(jobs[0].state)
    time.sleep(60)
    """
    with process(panel.root, panel.folder, [panel.long(1), panel.request(2), panel.request(3)], code) as running:
        assert heard(running) == "running"
        other = panel.queue()
        assert other.jobs() == []  # they are another's as long as it lives
        kill(running)

    queue = panel.queue()
    assert seeds(queue.jobs()) == panel.kept() == [1, 2, 3]
    assert queue.paused
    assert len(list(panel.folder.glob("*.lock"))) == 2  # of the two queues that live
    time.sleep(0.3)
    assert [job.state for job in queue.jobs()] == ["queued"] * 3

    fresh = queue.submit(panel.request(4))  # what is asked for now does not wait for them
    wait_until(lambda: fresh.is_over)
    assert [job.held for job in queue.jobs()] == [True, True, True, False]
    queue.remove(queue.jobs()[0].id)
    queue.resume()
    wait_until(lambda: all(job.is_over for job in queue.jobs()))
    assert [job.state for job in queue.jobs()] == ["done"] * 3
    assert panel.kept() == []
    assert sum(run.is_done() for run in run_folders(panel.root)) == 3


def test_a_closed_queue_leaves_its_requests_to_the_next(panel: Panel) -> None:
    queue = panel.queue()
    running, _ = queue.submit(panel.long(1)), queue.submit(panel.request(2))
    started(queue, running)
    queue.close()
    assert panel.kept() == [1, 2]
    assert run_folders(panel.root) == []
    with pytest.raises(RuntimeError):
        queue.submit(panel.request(3))
    assert seeds(panel.queue(threaded=False).jobs()) == [1, 2]
    assert panel.queue(threaded=False).jobs() == []


def test_an_ending_interpreter_closes_its_queue(panel: Panel) -> None:
    code = """
    queue = JobQueue(root, folder)
    job = queue.submit(requests[0])
    while job.progress is None or job.progress.step is None:
        time.sleep(0.01)
    """
    with process(panel.root, panel.folder, [panel.long(1)], code) as running:
        assert running.wait(60) == 0
    assert run_folders(panel.root) == []
    assert panel.kept() == [1]


def test_two_processes_at_once_share_no_request_and_make_no_clip_twice(panel: Panel) -> None:
    """Both are given the same requests; one is to make each, the other finds it there."""
    code = """
    queue = JobQueue(root, folder)
    jobs = [queue.submit(one) for one in requests]
    while not all(job.is_over for job in jobs):
        time.sleep(0.01)
    tell(json.dumps([job.state for job in jobs]))
    """
    requests = [panel.request(seed, num_inference_steps=3) for seed in range(4)]
    with (
        process(panel.root, panel.folder, requests, code) as first,
        process(panel.root, panel.folder, list(reversed(requests)), code) as second,
    ):
        states = [json.loads(heard(first)), json.loads(heard(second))[::-1]]
    assert [sorted(pair) for pair in zip(*states, strict=True)] == [["done", "known"]] * 4
    assert len(run_folders(panel.root)) == 4


def test_many_processes_adopt_a_dead_queue_once(panel: Panel) -> None:
    kept = QueueFile(panel.folder)
    kept.save([Kept(f"job{seed}", panel.request(seed)) for seed in range(5)])
    kept.close()
    code = """
    queue = JobQueue(root, folder, threaded=False)
    tell(len(queue.jobs()))
    time.sleep(60)
    """
    others = [process(panel.root, panel.folder, [], code) for _ in range(3)]
    with others[0] as first, others[1] as second, others[2] as third:
        assert sorted(heard(one) for one in (first, second, third)) == ["0", "0", "5"]


def test_a_process_killed_while_adopting_leaves_no_request_twice(panel: Panel) -> None:
    """It had written its own file, and not yet removed the other."""
    for _ in range(2):
        copy = QueueFile(panel.folder)
        copy.save([Kept("one", panel.request(1)), Kept("two", panel.request(2))])
        copy.close()
    assert seeds(panel.queue(threaded=False).jobs()) == [1, 2]


def test_a_damaged_queue_file_is_put_aside_and_the_readable_requests_count(
    panel: Panel, caplog: pytest.LogCaptureFixture
) -> None:
    panel.folder.mkdir()
    good = {"id": "good", "request": panel.request(3).to_wire()}
    bad = {"id": "bad", "request": {"imagePath": 3, "ofALaterVersion": True}}
    (panel.folder / "queue-a.json").write_text(json.dumps({"version": 1, "jobs": [bad, good]}))
    (panel.folder / "queue-b.json").write_text("{")
    assert seeds(panel.queue(threaded=False).jobs()) == [3]
    assert [name for name in files(panel.folder) if "unreadable" in name] == [
        "queue-a.unreadable",
        "queue-b.unreadable",
    ]
    assert caplog.text.count("cannot be read") == 2


def test_a_kept_request_means_the_same_in_another_folder(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = panel.request().replace(image_path=panel.image.name, output_path="out/clip.mp4")
    absolute = panel.queue(threaded=False).submit(relative).params
    assert absolute.image_path == str(panel.image)
    assert absolute.output_path == str(tmp_path / "out" / "clip.mp4")
    named = relative.replace(image_path="example:photo", base_model="bundled:tiny-svd", output_path=None)
    assert with_absolute_paths(named).model_dump() == named.model_dump()


# --- in the foreground -----------------------------------------------------------------------------------------------


def test_run_here_runs_all_in_the_calling_thread(panel: Panel) -> None:
    queue = panel.queue(threaded=False)
    jobs = [queue.submit(panel.request(seed)) for seed in (1, 2)]
    threads = set()
    queue.listen(lambda job: threads.add(threading.current_thread()))
    queue.run_here()
    assert [job.state for job in jobs] == ["done", "done"]
    assert threads == {threading.main_thread()}


def test_an_interrupt_of_run_here_cancels_the_running_job_and_keeps_the_others(panel: Panel) -> None:
    code = """
    queue = JobQueue(root, folder, threaded=False)
    jobs = [queue.submit(one) for one in requests]
    queue.listen(lambda job: tell("step") if job.progress and job.progress.step else None)
    queue.run_here()
    tell([job.state for job in jobs], [path.name for path in root.iterdir()])
    queue.run_here()
    tell([job.state for job in jobs])
    """
    with process(panel.root, panel.folder, [panel.long(1), panel.request(2)], code) as running:
        assert heard(running) == "step"
        running.send_signal(signal.SIGINT)
        said = heard(running)
        while said == "step":
            said = heard(running)
        assert said == "['cancelled', 'queued'] ['.locks']"
        while said != "['cancelled', 'done']":
            said = heard(running)
            assert said


# --- loading ahead ---------------------------------------------------------------------------------------------------


def test_preload_loads_when_nothing_runs(panel: Panel) -> None:
    from vidkit.generation import loaded_models

    cold()
    ended: list[object] = []
    queue = panel.queue()
    queue.preload(panel.request(), ended.append)
    wait_until(lambda: ended)
    assert ended == [None]
    assert loaded_models() == [panel.model.name]
    assert run_folders(panel.root) == []

    queue.preload(panel.request().replace(base_model="no such model"), ended.append)
    wait_until(lambda: len(ended) == 2)
    assert queue.preload_error is not None
    assert queue.preload_error.code == "model_not_found"
    queue.preload(panel.request())
    wait_until(lambda: queue.preload_error is None)


def test_a_job_comes_before_what_is_wanted_loaded(panel: Panel) -> None:
    queue = panel.queue()
    long = queue.submit(panel.long())
    started(queue, long)
    heard: list[object] = []
    queue.preload(panel.request().replace(base_model="no such model"), heard.append)
    job = queue.submit(panel.request(2))
    queue.cancel(long.id)
    wait_until(lambda: job.is_over)
    assert job.state == "done"
    time.sleep(0.3)  # as long as it would take to look for the model
    assert heard == []


def test_importing_the_queue_loads_neither_torch_nor_widgets() -> None:
    code = (
        "import sys, vidkit.panel.queue, vidkit.panel.history, vidkit.panel.estimate\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ipywidgets', 'diffusers', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="cannot be written") as caught:
        JobQueue(tmp_path, tmp_path / "file" / "panel")
    assert not isinstance(caught.value, InputError)
