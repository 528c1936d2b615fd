"""Two processes on one device, with full-size models: turns, models that stay, and models that make room.

    python -m benchmarks.two_processes [--few]    # prints JSON; under a minute on a GPU

Weights are zeros that take no room on the disk. The second process is told of a card as large as leaves no room for the
models of the first; that is the only stand-in. --few: a rehearsal on any machine, with a bundled model, where memory is
not predicted and every process makes room.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.memory import about_this_machine
from benchmarks.memory_models import make_published_svd


class Child:
    """A process that makes clips, asked and answering in lines of JSON."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.two_processes", "--child"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        asking: Any = self.process.stdin
        asking.write(json.dumps({"do": do, **more}) + "\n")
        asking.flush()
        answers: Any = self.process.stdout
        return dict(json.loads(answers.readline()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--few", action="store_true", help="a rehearsal with a bundled model")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child()
    if options.few:
        os.environ["VIDKIT_DEVICE_LOCK"] = f"benchmark-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        model = "bundled:tiny-svd"
        if not options.few:
            make_published_svd(Path(folder) / "svd")
            model = str(Path(folder) / "svd")
        picture = Path(folder) / "grey.png"  # zeros make grey clips, which are an error for any other picture
        Image.new("RGB", (64, 64), "grey").save(picture)
        request = {"pipeline": "svd", "base_model": model, "image_path": str(picture), "prompt": "x", "seed": 1}
        size = {} if options.few else {"width": 512, "height": 512}
        found = measure(request | size | {"num_frames": 14, "num_inference_steps": 3}, Path(folder))
    print(json.dumps(about_this_machine() | found, indent=1))
    return 0 if found["ok"] else 1


def measure(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    first, second = Child(), Child()
    try:
        one = request | {"output_path": str(folder / "one.mp4"), "overwrite": True}
        two = request | {"output_path": str(folder / "two.mp4"), "overwrite": True}
        rows: dict[str, Any] = {"first_cold": first.ask("clip", request=one)}
        rows["second_cold_beside_it"] = second.ask("clip", request=two)
        rows["first_stays_warm"] = first.ask("clip", request=one)
        rows["both_at_once"] = at_once(first, second, one, two)
        time.sleep(4)  # spare memory has gone back
        rows["first_idle"], before = first.ask("look"), second.ask("look")
        card = None
        if before["used"] is not None:  # all but half of what the first one holds, and what the request needs
            card = before["used"] - before["held"] + before["needs"] - rows["first_idle"]["held"] // 2
        rows["second_needs_room"] = second.ask("clip", request=two, card=card)
        rows["first_has_made_room"], after = first.ask("look"), second.ask("look")
        if before["used"] is not None:
            given_back = before["used"] - before["held"] - (after["used"] - after["held"])
            rows["given_back_share"] = round(given_back / rows["first_idle"]["held"], 3)
        rows["first_loads_again"] = first.ask("clip", request=one)
        rows["alone_turn_ms"] = first.ask("turns")["ms"]
    finally:
        for one_of_them in (first, second):
            one_of_them.process.kill()
            one_of_them.process.wait()
    return rows | {"ok": is_good(rows)}


def at_once(first: Child, second: Child, one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Three clips each, both told at the same time: no two compute at once, and neither starves."""
    rows: dict[int, list[dict[str, Any]]] = {1: [], 2: []}

    def make(number: int, process: Child, request: dict[str, Any]) -> None:
        rows[number] = [process.ask("clip", request=request) for _ in range(3)]

    threads = [threading.Thread(target=make, args=args) for args in ((1, first, one), (2, second, two))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = sorted((row["began"], row["ended"], number) for number in rows for row in rows[number])
    return {
        "seconds": round(time.monotonic() - began, 2),
        "order": [number for _, _, number in turns],
        "overlap_seconds": round(max(0.0, *(turns[i][1] - turns[i + 1][0] for i in range(len(turns) - 1))), 3),
        "load_seconds": [row["timing"]["load"] for number in rows for row in rows[number]],
        "wait_seconds": [row["timing"].get("wait", 0.0) for number in rows for row in rows[number]],
    }


def is_good(rows: dict[str, Any]) -> bool:
    """What is promised: one at a time, in turns; models stay where there is room, and go where there is none."""
    together = rows["both_at_once"]
    on_a_gpu = "given_back_share" in rows
    warm = not on_a_gpu or max(rows["first_stays_warm"]["timing"]["load"], *together["load_seconds"]) < 0.5
    gone = not rows["first_has_made_room"]["models"] and rows.get("given_back_share", 1.0) > 0.9
    in_turns = together["order"][:4] in ([1, 2, 1, 2], [2, 1, 2, 1])
    return warm and gone and in_turns and together["overlap_seconds"] == 0.0


# --- a process ------------------------------------------------------------------------------------------------------


def child() -> int:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from vidkit import generation

    last: dict[str, Any] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "clip":
            last = order["request"]
            answer = clip(order["request"], order.get("card"))
        elif order["do"] == "look":
            answer = look(last)
        else:
            answer = {"ms": turns_alone()}
        out.write(json.dumps(answer | {"models": generation.loaded_models()}) + "\n")
        out.flush()
    return 0


def clip(request: dict[str, Any], card: int | None) -> dict[str, Any]:
    """card: bytes that the device is to have; None: what it has."""
    import torch

    import vidkit

    real = torch.cuda.mem_get_info

    def smaller(*_: Any) -> tuple[int, int]:
        free, total = real()
        return max(0, (card or total) - (total - free)), card or total

    turns: list[float] = []
    said: list[str] = []

    def on_progress(event: Any) -> None:
        if event.message.startswith("Loading model...") or event.progress >= 95:
            turns.append(time.monotonic())
        if event.message.startswith("Waiting"):
            said.append(event.message)

    torch.cuda.mem_get_info = smaller
    try:
        result = vidkit.generate(request, on_progress=on_progress)
    finally:
        torch.cuda.mem_get_info = real
    plan = result.record["plan"]
    return {"timing": result.metadata["timing"], "plan": plan, "waited_for": said, "began": turns[0], "ended": turns[1]}


def look(request: dict[str, Any]) -> dict[str, Any]:
    """Bytes: used of the device by all, held of it by this process, and needed for a request."""
    import torch

    from vidkit.device import Plan, memory_held
    from vidkit.memory import predict
    from vidkit.memory.prediction import TOLERANCE
    from vidkit.params import GenerationParams
    from vidkit.resolving import resolve_request
    from vidkit.settings import load_settings

    if not torch.cuda.is_available():
        return {"used": None, "held": 0, "needs": 0}
    free, total = torch.cuda.mem_get_info()
    found = resolve_request(GenerationParams(**request), load_settings())
    prediction = predict(found.params, found.models, Plan("cuda", "float16", "model"))  # as on a card so small
    needs = round(prediction.peak * (1 + TOLERANCE)) if prediction is not None else 0
    return {"used": total - free, "held": memory_held(), "needs": needs}


def turns_alone() -> float:
    """Milliseconds that taking a turn costs, beside an idle process."""
    from vidkit import generation
    from vidkit.device import chosen_device, device_identity

    identity, count = device_identity(chosen_device()), 50
    began = time.monotonic()
    for _ in range(count):
        with generation._device.turn(identity, "the device", "measuring", lambda words: None):
            pass
    return round((time.monotonic() - began) / count * 1000, 2)


if __name__ == "__main__":
    raise SystemExit(main())
