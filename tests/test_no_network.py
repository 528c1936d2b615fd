"""Only `vidkit models download` goes to the network: all else works where there is none, and imports no client."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lora_files
import pytest
import yaml
from model_server import ModelServer, Served
from tiny_models import TinyAnimateDiff, save_single_file

from vidkit.models.locate import BUNDLED_FOLDER

ROOT = Path(__file__).parent.parent
DOWNLOAD = "vidkit/models/download/"
#: what speaks HTTP, or any protocol of the internet
CLIENTS = {
    "aiohttp", "ftplib", "h2", "http.client", "httpcore", "httpx", "httpx2", "huggingface_hub", "hf_xet", "requests",
    "smtplib", "urllib.request", "urllib3", "websockets", "xmlrpc",
}  # fmt: skip
#: switches that keep libraries offline: vidkit must not need them
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")

SMALL = {"image_path": "example:photo", "prompt": "zoom in", "num_inference_steps": 1, "seed": 7}


class Offline:
    """Runs Python where every look-up and connection is refused, in it and in what it starts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.log = folder, folder / "refused.txt"

    def run(self, *arguments: str, network: str = "none") -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in SWITCHES}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "no_network"), str(ROOT)]),
            "VIDKIT_TEST_NETWORK": network,
            "VIDKIT_TEST_NETWORK_LOG": str(self.log),
            "VIDKIT_DEVICE": "cpu",
            "HF_HOME": str(self._folder / "hf"),  # nothing that was fetched before
        }
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=self._folder, timeout=240
        )

    def works(self, *arguments: str, network: str = "none") -> str:
        done = self.run(*arguments, network=network)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert not self.log.exists(), self.log.read_text()
        return done.stdout


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    return Offline(tmp_path)


# --- the proof itself


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer().running() as server:
        yield server


def test_what_goes_to_the_network_is_caught(offline: Offline, server: ModelServer) -> None:
    """Here it breaks: or the tests below could not fail."""
    server.files["/x.safetensors"] = Served(b"?" * 5000)
    done = offline.run("-m", "vidkit", "models", "download", f"{server.url}/x.safetensors")
    assert done.returncode == 3
    assert not server.asked
    assert "127.0.0.1" in offline.log.read_text()


@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request; urllib.request.urlopen('http://example.org')",
        "import httpx; httpx.get('http://192.0.2.1')",
        "from huggingface_hub import HfApi; HfApi().model_info('org/name')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import socket; socket.create_connection((\"192.0.2.1\", 80))'], check=True)",
    ],
)
def test_every_way_out_is_caught(offline: Offline, code: str) -> None:
    assert offline.run("-c", code, network="loopback").returncode != 0
    assert "socket." in offline.log.read_text()


# --- what works without


GENERATING = f"""
import sys, vidkit
from vidkit import generation
base, motion, single, lora = sys.argv[1:]
small = {SMALL!r}
first = vidkit.generate({{**small, "pipeline": "svd", "num_frames": 3}})
words = {{**small, "pipeline": "animatediff", "num_frames": 4, "num_inference_steps": 2, "width": 64, "height": 64}}
generation.preload({{**words, "base_model": base, "motion_adapter": motion}})
vidkit.generate({{**words, "base_model": base, "motion_adapter": motion, "loras": lora + ":0.7"}})
vidkit.generate({{**words, "base_model": single, "motion_adapter": motion}})
generation.unload()
vidkit.show(first.output)
panel = vidkit.ControlPanel(mode="live")
panel._live.models.widget
panel.close()
"""


def test_generating_loading_ahead_and_the_panel_need_no_network(
    offline: Offline, tmp_path: Path, tiny_animatediff: TinyAnimateDiff
) -> None:
    from diffusers import AnimateDiffVideoToVideoPipeline, MotionAdapter

    adapter = MotionAdapter.from_pretrained(tiny_animatediff.motion_adapter)
    pipe = AnimateDiffVideoToVideoPipeline.from_pretrained(tiny_animatediff.base, motion_adapter=adapter)
    lora = lora_files.save(lora_files.kohya(lora_files.pairs_for(pipe, ("to_q",))), tmp_path / "style.safetensors")
    shutil.copytree(tiny_animatediff.base, tmp_path / "one", ignore=shutil.ignore_patterns("*.safetensors"))
    single = save_single_file(tiny_animatediff.base, tmp_path / "one" / "single.safetensors")
    script = tmp_path / "generating.py"
    script.write_text(GENERATING)
    parts = (tiny_animatediff.base, tiny_animatediff.motion_adapter, single, lora)
    offline.works(str(script), *map(str, parts))


def test_the_command_line_needs_no_network(offline: Offline) -> None:
    options = ["--num-frames", "3", "--num-inference-steps", "1", "--seed", "7", "--pipeline", "svd"]
    offline.works("-m", "vidkit", "generate", "--image-path", "example:photo", "--prompt", "zoom in", *options)


MODELS = """
import sys
from vidkit.cli import main
folder, pickle = sys.argv[1:]
for words in (
    "models list --available --json", f"models inspect {folder}", f"models add {folder} --name mine", "models verify",
    f"models convert {pickle} converted.safetensors", "models list", "models remove mine", "--help",
):
    try:
        code = main(words.split())
    except SystemExit as end:
        code = end.code
    assert not code, words
"""


def test_the_verbs_for_models_need_no_network(offline: Offline, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = BUNDLED_FOLDER / "tiny-motion-adapter"
    torch.save(load_file(folder / "diffusion_pytorch_model.safetensors"), tmp_path / "move.ckpt")
    script = tmp_path / "models.py"
    script.write_text(MODELS)
    offline.works(str(script), str(folder), str(tmp_path / "move.ckpt"))


def test_a_sweep_goes_no_further_than_to_its_kernel(offline: Offline, tmp_path: Path) -> None:
    base = {**SMALL, "pipeline": "svd", "num_frames": 3}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": base, "axes": {"motion_bucket_id": [60]}}))
    said = offline.works("-m", "vidkit", "sweep", "sweep.yaml", "--output", "out", network="loopback")
    assert '"done": 1' in said
    assert len(list((tmp_path / "out").glob("*/clip.mp4"))) == 1


# --- who could go there


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted((ROOT / "vidkit").rglob("*.py")):
        yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """All modules that a file names in an import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_client(module: str) -> bool:
    if module.startswith("huggingface_hub.constants"):  # names of folders and variables, which fetch nothing
        return False
    return any(module == client or module.startswith(client + ".") for client in CLIENTS)


def test_only_the_download_imports_what_speaks_http() -> None:
    found = {(name, module) for name, tree in modules() for module in imported(tree) if is_client(module)}
    assert {module.partition(".")[0] for name, module in found if name.startswith(DOWNLOAD)} >= {
        "httpx",
        "huggingface_hub",
    }
    assert not {(name, module) for name, module in found if not name.startswith(DOWNLOAD)}


def test_only_the_download_verb_imports_the_download() -> None:
    users = {name for name, tree in modules() if "vidkit.models.download" in imported(tree)}
    assert {name for name in users if not name.startswith(DOWNLOAD)} == {"vidkit/cli_models.py"}
