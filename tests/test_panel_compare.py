"""The player in a real JupyterLab: two clips whose every frame says its number, as pixels."""

from __future__ import annotations

import io
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from browser import launch
from lab import JupyterLab, Notebook, jupyterlab
from PIL import Image
from playwright.sync_api import Browser, Locator, expect, sync_playwright

from vidkit.errors import InputError
from vidkit.panel.compare import ComparePlayer, request_differences
from vidkit.params import GenerationParams, OutputFormat
from vidkit.video import write_video

SIZE, FRAMES_A, FPS_A, FRAMES_B, FPS_B = 128, 14, 8, 24, 12
BLOCK = 5  # pixels: frame n of a clip has its white mark at x = n * BLOCK

CELLS = [
    "from pathlib import Path\nfrom vidkit.panel.compare import ComparePlayer\nplayer = ComparePlayer()\nplayer",
    'player.show(Path("red.mp4"), Path("blue.webm"), "sunset", "night", '
    'differences=[("seed", "1", "2"), ("motion bucket id", "20", "127")])',
]

# the number of the frame that each video shows, read from its pixels; the time it says; whether it is seeking
READ = """(root) => [...root.querySelectorAll('video')].map((video) => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 128, height: 4 });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0, 128, 4, 0, 0, 128, 4);
  const { data } = context.getImageData(0, 2, 128, 1);
  let best = 0, least = -1;
  for (let frame = 0; frame * 5 + 2 < 128; frame++) {
    const at = (frame * 5 + 2) * 4, white = Math.min(data[at], data[at + 1], data[at + 2]);
    if (white > least) { least = white; best = frame; }
  }
  return { frame: best, time: video.currentTime, seeking: video.seeking, paused: video.paused };
})"""


INSIDE = """(root) => {
  const edge = root.getBoundingClientRect().right + 1;
  return [...root.querySelectorAll('*')].every((part) => part.getBoundingClientRect().right <= edge);
}"""


def numbered(count: int, colour: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Frames of one colour, with texture, a bar that moves on, and the white mark on black that says the number."""
    texture = np.random.default_rng(3).integers(-20, 20, (SIZE, SIZE, 1))
    frames = np.clip(np.array(colour) + texture, 0, 255).astype(np.uint8)[None].repeat(count, 0)
    for number, frame in enumerate(frames):
        frame[:4] = 0
        frame[:4, number * BLOCK : (number + 1) * BLOCK] = 255
        frame[40:60, number * 4 : number * 4 + 12] = 230
    return frames


def make_clip(path: Path, count: int, fps: int, colour: tuple[int, int, int], kind: OutputFormat = "mp4") -> Path:
    write_video(numbered(count, colour), path, fps=fps, output_format=kind, record=None)
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    with jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        make_clip(lab.root / "red.mp4", FRAMES_A, FPS_A, (180, 40, 40))
        make_clip(lab.root / "blue.webm", FRAMES_B, FPS_B, (40, 40, 180), "webm")
        make_clip(lab.root / "red.gif", 6, 5, (180, 40, 40), "gif")
        lab.add("compare.ipynb", CELLS)
        yield lab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def notebook(lab: JupyterLab, browser: Browser) -> Iterator[Notebook]:
    with lab.opened(browser, "compare.ipynb") as notebook:
        notebook.page.evaluate("""() => {
            const alive = window.alive = new Set();
            const { createObjectURL, revokeObjectURL } = URL;
            URL.createObjectURL = (blob) => {
                const address = createObjectURL.call(URL, blob);
                if (/video|image/.test(blob.type)) alive.add(address);
                return address;
            };
            URL.revokeObjectURL = (address) => { alive.delete(address); revokeObjectURL.call(URL, address); };
        }""")
        notebook.run_all()
        yield notebook


@pytest.fixture
def player(notebook: Notebook) -> Locator:
    """Two clips, paused at the first frame, side by side."""
    notebook.run_cell(CELLS[1])
    return at_rest(notebook)


def at_rest(notebook: Notebook) -> Locator:
    player = notebook.outputs.locator(".vidkit-compare")
    expect(player.locator("video").first).to_be_visible()
    player.scroll_into_view_if_needed()
    if player.get_by_role("button", name="Pause").is_visible():
        player.get_by_role("button", name="Pause").click()
    if player.get_by_role("button", name="Side by side").is_visible():
        player.get_by_role("button", name="Side by side").click()
    picture(player).focus()
    notebook.page.keyboard.press("Home")
    expect(player.get_by_role("status")).to_have_text(re.compile(r"frame 1 of \d+\b(?!, B frame (?!1 of))"))
    return player


def picture(player: Locator) -> Locator:
    return player.get_by_role("group", name="Picture")


def shown(player: Locator) -> list[dict[str, Any]]:
    """What the videos show, once no seek is under way, nor begins: a seek that ends may begin the one that waited."""
    before: list[dict[str, Any]] | None = None
    for _ in range(100):
        videos: list[dict[str, Any]] = player.evaluate(READ)
        if videos == before and not any(video["seeking"] for video in videos):
            return videos
        before = videos
        player.page.wait_for_timeout(100)
    raise AssertionError(videos)


def frames(player: Locator) -> list[int]:
    return [video["frame"] for video in shown(player)]


def pixels(of: Locator) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(of.screenshot())).convert("RGB"))


def test_two_clips_play_in_step_and_wait_for_each_other(player: Locator) -> None:
    player.get_by_role("button", name="Play").click()
    expect(player.get_by_role("status")).to_have_text("Playing in step; the shorter waits on its last frame.")
    samples = player.evaluate(
        """async (root, counts) => {  // busy cores drop frames, but not the same ones each time round
            const read = $READ;
            const samples = [];
            const seen = counts.map(() => new Set());
            const begun = performance.now();
            const lacks = () => counts.some((count, which) => seen[which].size < count);
            while (performance.now() < begun + 5000 || (lacks() && performance.now() < begun + 20000)) {
                await new Promise(requestAnimationFrame);
                const sample = read(root);
                samples.push(sample);
                sample.forEach((video, which) => seen[which].add(video.frame));
            }
            return samples;
        }""".replace("$READ", READ),
        [FRAMES_A, FRAMES_B],
    )
    assert len(samples) > 60
    last = (FRAMES_A - 0.5) / FPS_A
    apart = [abs(a["time"] - min(b["time"], last)) for a, b in samples]
    assert max(apart) < 1 / FPS_A, max(apart)
    settled = [(a, b) for a, b in samples if not a["seeking"] and not b["seeking"]]
    assert len(settled) > 0.8 * len(samples)
    seen = [abs(a["frame"] / FPS_A - min(b["frame"] / FPS_B, (FRAMES_A - 1) / FPS_A)) for a, b in settled]
    within = sum(gap <= 1 / FPS_A + 1e-6 for gap in seen) / len(seen)
    assert within > 0.8, (within, max(seen))  # the rest: frames that a browser on busy cores painted late
    for which, count in ((0, FRAMES_A), (1, FRAMES_B)):
        assert {sample[which]["frame"] for sample in samples} >= set(range(1, count - 1)), "not all frames came"
    starts = sum(before[1]["time"] > after[1]["time"] + 1 for before, after in itertools.pairwise(samples))
    assert starts >= 2, "it does not begin again"


def test_frame_steps_are_exact(player: Locator, notebook: Notebook) -> None:
    assert frames(player) == [0, 0]
    for step in range(1, FRAMES_B):
        notebook.page.keyboard.press("ArrowRight")
        due = (step + 0.5) / FPS_B
        assert frames(player) == [min(int(due * FPS_A + 1e-3), FRAMES_A - 1), step]
    assert player.get_by_role("status").inner_text() == (
        "Paused: A frame 14 of 14, B frame 24 of 24; the shorter waits on its last frame."
    )
    notebook.page.keyboard.press("ArrowRight")
    assert frames(player) == [0, 0]
    notebook.page.keyboard.press("ArrowLeft")
    assert frames(player) == [FRAMES_A - 1, FRAMES_B - 1]
    player.get_by_role("button", name="Frame back").click()
    assert frames(player) == [FRAMES_A - 1, FRAMES_B - 2]
    player.get_by_role("slider", name="Position").focus()
    notebook.page.keyboard.press("Home")
    for _ in range(3):
        notebook.page.keyboard.press("ArrowRight")
    assert frames(player)[1] == 3


@pytest.mark.parametrize("after", [0, 0.11], ids=["as it begins to play", "late in the first frame of A"])
@pytest.mark.parametrize("key", [" ", "Home"], ids=["Space", "Home"])
def test_stopped_while_it_plays_it_is_exact(player: Locator, key: str, after: float) -> None:
    """A video that plays may show a frame before its time. The page presses the keys itself: Playwright is too late."""
    shown(player)
    player.evaluate(
        """async (root, [key, after]) => {
            const picture = root.querySelector('[aria-label="Picture"]');
            const press = (key) => picture.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            const video = root.querySelector('video');
            press(' ');
            while (video.paused || video.currentTime < after) await new Promise(requestAnimationFrame);
            press(key);
        }""",
        [key, after],
    )
    videos = shown(player)
    said = re.match(r"Paused: A frame (\d+) of 14, B frame (\d+) of 24", player.get_by_role("status").inner_text())
    assert said
    due = [int(number) - 1 for number in said.groups()]
    assert [video["frame"] for video in videos] == due
    middles = [(due[0] + 0.5) / FPS_A, (due[1] + 0.5) / FPS_B]
    assert [video["time"] for video in videos] == pytest.approx(middles, abs=1e-3)
    assert all(video["paused"] for video in videos)


def test_the_wipe_moves_by_keys_and_pointer(player: Locator, notebook: Notebook) -> None:
    player.get_by_role("button", name="Wipe").click()
    border = player.get_by_role("slider", name="Wipe border")
    for press, value in (("ArrowRight", "51"), ("End", "100"), ("[", "98"), ("Home", "0"), ("]", "2")):
        border.focus()
        notebook.page.keyboard.press(press)
        assert border.input_value() == value
    stage = picture(player)
    box = stage.bounding_box()
    assert box is not None
    across, down = box["x"], box["y"] + box["height"] / 2
    notebook.page.mouse.move(across + 20, down)
    notebook.page.mouse.down()
    notebook.page.mouse.move(across + 0.75 * box["width"], down, steps=4)
    notebook.page.mouse.up()
    assert border.input_value() == "75"
    row = pixels(stage)[int(box["height"]) - 30].astype(int)
    redness = row[:, 0] - row[:, 2]
    cut = int(0.75 * box["width"])
    assert (redness[10 : cut - 8] > 60).all(), "A is left of the border"
    assert (redness[cut + 8 : -4] < -60).all(), "B is right of it"
    for key in "bx":
        notebook.page.keyboard.press(key)
    assert (
        notebook.page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets[0].model.sharedModel.source")
        == CELLS[0]
    )


def test_the_difference_is_black_where_clips_agree(player: Locator, notebook: Notebook) -> None:
    player.get_by_role("button", name="Difference").click()
    far = pixels(picture(player))
    assert far[200:, 5:-5, [0, 2]].mean() > 100
    notebook.run_cell('player.show(Path("red.mp4"), Path("red.mp4"))')
    at_rest(notebook)
    player.get_by_role("button", name="Difference").click()
    assert pixels(picture(player))[5:-5, 5:-5].max() < 3


def test_swapped_sides_keep_their_names_and_settings(player: Locator) -> None:
    captions = player.locator(".vidkit-compare-caption")
    assert captions.all_inner_texts() == [
        "A: sunset 128 \N{MULTIPLICATION SIGN} 128, 8 frames/s, 1.75 s",
        "B: night 128 \N{MULTIPLICATION SIGN} 128, 12 frames/s, 2 s",
    ]
    player.get_by_role("button", name="Swap sides").click()
    assert [text.split(" 128")[0] for text in captions.all_inner_texts()] == ["A: night", "B: sunset"]
    table = player.get_by_role("table", name="What differs between the two requests")
    assert table.get_by_role("row").all_inner_texts() == ["Setting\tA\tB", "seed\t2\t1", "motion bucket id\t127\t20"]
    left = pixels(picture(player))[200, 20].astype(int)
    assert left[2] - left[0] > 60


def test_speed_and_playing_by_key(player: Locator, notebook: Notebook) -> None:
    player.get_by_role("combobox", name="Speed").select_option("0.25")
    picture(player).focus()
    began = time.monotonic()
    notebook.page.keyboard.press(" ")
    time.sleep(2)
    notebook.page.keyboard.press(" ")
    passed = time.monotonic() - began
    assert 0.1 < shown(player)[1]["time"] < 0.25 * passed + 1 / FPS_B
    player.get_by_role("combobox", name="Speed").select_option("1")


def test_one_clip_loops_muted_and_three_times_as_large(notebook: Notebook) -> None:
    notebook.run_cell('player.show(Path("red.mp4"), left_label="sunset")')
    player = at_rest(notebook)
    box = player.locator("video").bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (384, 384)
    assert player.get_by_role("group", name="Comparison").is_hidden()
    assert player.locator("video").evaluate("(video) => video.muted")
    picture(player).click()
    player.evaluate(
        """async (root) => {
            const video = root.querySelector('video');
            for (const inFirstHalf of [false, true, false]) {
                while ((video.currentTime < 0.8) !== inFirstHalf) await new Promise(requestAnimationFrame);
            }
        }"""
    )
    expect(player.get_by_role("status")).to_have_text("Playing.")


def test_a_gif_is_shown_and_said_to_play_by_itself(notebook: Notebook) -> None:
    notebook.run_cell('player.show(Path("red.gif"), left_label="old one")')
    player = notebook.outputs.locator(".vidkit-compare")
    image = player.get_by_role("img", name="old one")
    expect(image).to_be_visible()
    expect(player.get_by_role("status")).to_contain_text("GIFs play by themselves")
    assert player.get_by_role("group", name="Playback").is_hidden()
    assert image.evaluate("(image) => image.naturalWidth") == SIZE


def test_a_damaged_clip_is_said_in_words(notebook: Notebook) -> None:
    notebook.run_cell('player.show(Path("red.mp4").read_bytes()[:300], left_label="half", left_fps=8)')
    player = notebook.outputs.locator(".vidkit-compare")
    expect(player.get_by_role("status")).to_contain_text("This browser cannot show half")


def test_every_control_has_a_name(player: Locator) -> None:
    for mode in ("Wipe", "Difference", "Side by side"):
        player.get_by_role("button", name=mode).click()
        unnamed = [
            line
            for line in player.aria_snapshot().splitlines()
            if line.strip() in {"- button", "- slider", "- combobox"}
        ]
        assert not unnamed
    names = [button.inner_text() for button in player.get_by_role("button").all()]
    assert names == ["Play", "Frame back", "Frame forward", "Side by side", "Wipe", "Difference", "Swap sides"]


def test_it_looks_right_in_both_themes_and_at_900_pixels(player: Locator, notebook: Notebook) -> None:
    picture(player).focus()
    for _ in range(6):
        notebook.page.keyboard.press("ArrowRight")
    for width in (1400, 900):
        notebook.page.set_viewport_size({"width": width, "height": 900})
        for mode in ("Side by side", "Wipe", "Difference"):
            player.get_by_role("button", name=mode).click()
            player.scroll_into_view_if_needed()
            notebook.screenshot(f"compare-{width}-{mode.split()[0].lower()}")
            assert player.evaluate(INSIDE), f"something sticks out at {width} pixels"
    for theme in ("dark", "light"):
        notebook.theme(theme)
        assert contrast(player.get_by_role("status")) > 7
        assert contrast(player.locator(".vidkit-compare-help")) > 4.5
    notebook.page.set_viewport_size({"width": 1400, "height": 900})


def contrast(text: Locator) -> float:
    """WCAG's contrast of a text's colour with what is painted behind it."""
    colour = text.evaluate("(element) => getComputedStyle(element).color.match(/[\\d.]+/g).slice(0, 4).map(Number)")
    behind = np.median(pixels(text).reshape(-1, 3), 0) / 255
    opacity = colour[3] if len(colour) > 3 else 1
    front = opacity * np.array(colour[:3]) / 255 + (1 - opacity) * behind

    def luminance(rgb: npt.NDArray[Any]) -> float:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(front), luminance(behind)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_reopened_it_has_its_clips_again_and_the_file_has_none(
    player: Locator, notebook: Notebook, lab: JupyterLab, browser: Browser
) -> None:
    kernel = notebook.kernel_id()
    notebook.save()
    assert notebook.path.stat().st_size < 100_000
    with lab.opened(browser, "compare.ipynb") as again:
        assert again.kernel_id() == kernel
        restored = at_rest(again)
        assert frames(restored) == [0, 0]
        assert restored.locator(".vidkit-compare-caption b").all_inner_texts() == ["A: sunset", "B: night"]


def test_nothing_is_left_when_it_is_closed(player: Locator, notebook: Notebook) -> None:
    assert notebook.page.evaluate("window.alive.size") == 2
    notebook.run_cell("player.clear()")
    expect(player.get_by_role("status")).to_have_text("There is no clip to show yet.")
    assert notebook.page.evaluate("window.alive.size") == 0
    notebook.run_cell(CELLS[1])
    at_rest(notebook)
    notebook.run_cell("player.close()")
    notebook.page.wait_for_function("() => !document.querySelector('.vidkit-compare')")
    assert notebook.page.evaluate("window.alive.size") == 0


def request(**more: Any) -> GenerationParams:
    return GenerationParams(image_path="photo.jpg", prompt="waves", **more)


def test_differences_name_what_can_be_seen() -> None:
    rows = request_differences(request(seed=1, output_path="a.mp4"), request(seed=2, width=256, output_path="b.mp4"))
    assert rows == [("width", "the model's default", "256"), ("seed", "1", "2")]
    assert request_differences(request(), request()) == []


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    player = ComparePlayer()
    with pytest.raises(InputError, match=r"missing\.mp4") as missing:
        player.show(tmp_path / "missing.mp4")
    assert missing.value.code == "clip_not_found"
    with pytest.raises(InputError, match="neither MP4, WebM nor GIF") as text:
        player.show(b"no clip at all", left_label="notes")
    assert text.value.code == "invalid_clip"


def test_no_clip_is_in_the_state_that_notebooks_are_saved_with(tmp_path: Path) -> None:
    player = ComparePlayer()
    player.show(make_clip(tmp_path / "red.mp4", FRAMES_A, FPS_A, (180, 40, 40)))
    assert not any(isinstance(value, bytes) for value in player.get_state().values())
