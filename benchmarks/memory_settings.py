"""The requests whose device memory `benchmarks.memory` measures."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidkit.device import Offload, Plan
from vidkit.params import GenerationParams, Speed

#: measures of a plan that are on or off, by their names in it
MEASURES = ("halves", "slices", "host_skips", "vae_float32")


@dataclass(frozen=True)
class Setting:
    """A request to measure, and the measures of its plan. guided: classifier-free guidance on."""

    model: str
    width: int
    height: int
    frames: int
    chunk: int
    guided: bool = True
    offload: Offload = "none"
    conditioning: str = "init"
    split: str = "calibration"
    halves: bool = False
    slices: bool = False
    host_skips: bool = False
    vae_float32: bool = False
    window_frames: int | None = None
    speed: Speed = "exact"

    def params(self, models: Path) -> GenerationParams:
        names: dict[str, Any] = {"base_model": self.model if ":" in self.model else str(models / self.model)}
        if self.family == "animatediff":
            tiny, adapter = ":" in self.model, "pia_adapter" if self.conditioning == "pia" else "motion_adapter"
            names["motion_adapter"] = "bundled:tiny-motion-adapter" if tiny else str(models / adapter)
            names["conditioning"] = self.conditioning
            names["guidance_scale"] = 7.5 if self.guided else 1.0
            if self.conditioning == "sparsectrl":
                names["controlnet"] = str(models / "sparse_controlnet")
        else:
            names |= {"min_guidance_scale": 1.0, "max_guidance_scale": 3.0 if self.guided else 1.0}
        return GenerationParams(
            pipeline=self.family,
            image_path="example:photo",
            prompt="a storm over the sea",
            width=self.width,
            height=self.height,
            num_frames=self.frames,
            decode_chunk_size=self.chunk,
            num_inference_steps=2,
            window_frames=self.window_frames,
            seed=1,
            **names,
        )

    @property
    def family(self) -> Any:
        return "svd" if "svd" in self.model else "animatediff"

    @property
    def measures(self) -> bool:
        """Whether its plan has any but offloading model by model, or the request windows."""
        taken = any(getattr(self, name) for name in MEASURES)
        return taken or self.offload == "layers" or self.window_frames is not None

    def plan(self, device: str) -> Plan:
        """On the CPU, a rehearsal: what waits in the host's memory waits where it is."""
        dtype, offload = ("float16", self.offload) if device == "cuda" else ("float32", "none")
        return Plan(device, dtype, offload, self.speed, **{name: getattr(self, name) for name in MEASURES})


def settings() -> list[Setting]:
    """Judged ones first, each model's together, so that it is loaded once for them."""
    chosen = [*svd_settings(), *animatediff_settings(), *other_models(), *table_and_drawn(), *measure_by_measure()]
    together = [*chosen, *judged_settings(), *judged_with_measures(), *at_speed_fast()]
    return sorted(
        together, key=lambda one: (one.split != "judged", one.model[::-1], one.conditioning, one.offload != "none")
    )


def svd_settings() -> list[Setting]:
    resident = [
        (1024, 576, 25, 4, True), (1024, 576, 14, 8, True), (512, 512, 25, 25, True), (768, 448, 20, 2, False),
        (256, 256, 16, 1, True), (512, 320, 40, 4, True), (576, 1024, 25, 1, False), (768, 768, 25, 5, True),
        (640, 384, 60, 16, True), (320, 320, 8, 8, False), (448, 256, 48, 12, True), (704, 512, 14, 3, True),
        (1024, 576, 25, 25, True), (896, 512, 30, 6, False), (512, 512, 8, 2, True), (1024, 1024, 14, 4, True),
        (384, 640, 32, 32, True), (256, 448, 100, 7, False),
    ]  # fmt: skip
    offloaded = [
        (1024, 576, 25, 2, True), (512, 512, 14, 4, True), (768, 768, 14, 1, True), (640, 640, 25, 8, True),
        (320, 576, 25, 25, False), (768, 448, 14, 14, True), (1024, 576, 8, 4, False), (448, 448, 50, 3, True),
        (256, 256, 25, 4, False), (576, 320, 25, 6, True), (1024, 576, 60, 2, True), (768, 768, 80, 4, True),
    ]  # fmt: skip
    return [
        *(Setting("svd", *row, "none") for row in resident),
        *(Setting("svd", *row, "model") for row in offloaded),
    ]


def animatediff_settings() -> list[Setting]:
    resident = [
        ("init", 512, 512, 16, 4, True), ("init", 256, 256, 16, 16, True), ("init", 768, 512, 16, 2, True),
        ("init", 512, 512, 32, 8, False), ("init", 384, 640, 24, 1, True), ("init", 512, 512, 64, 4, True),
        ("init", 768, 768, 32, 4, True), ("init", 512, 768, 8, 8, False),
        ("pia", 512, 512, 16, 4, True), ("pia", 256, 384, 16, 1, True), ("pia", 768, 768, 16, 8, False),
        ("pia", 512, 512, 32, 16, True), ("pia", 512, 512, 40, 4, True), ("pia", 640, 448, 24, 24, True),
        ("sparsectrl", 512, 512, 16, 4, True), ("sparsectrl", 256, 256, 32, 2, True),
        ("sparsectrl", 768, 512, 16, 16, False), ("sparsectrl", 512, 512, 48, 8, True),
        ("sparsectrl", 640, 640, 16, 1, True), ("sparsectrl", 384, 384, 24, 6, False),
    ]  # fmt: skip
    offloaded = [
        ("init", 512, 512, 16, 2, True), ("init", 640, 384, 16, 4, False), ("init", 512, 512, 48, 4, True),
        ("init", 256, 256, 16, 1, True), ("pia", 512, 512, 16, 2, True), ("pia", 384, 576, 24, 4, True),
        ("sparsectrl", 512, 512, 16, 2, True), ("sparsectrl", 512, 320, 24, 8, True),
    ]  # fmt: skip
    return [
        *(Setting("sd15", *row[1:], "none", row[0]) for row in resident),
        *(Setting("sd15", *row[1:], "model", row[0]) for row in offloaded),
    ]


def other_models() -> list[Setting]:
    """Other widths and depths than the published models'."""
    small = [
        (512, 512, 14, 4, True), (768, 512, 20, 8, True), (512, 320, 32, 2, False), (1024, 576, 16, 1, True),
        (384, 384, 24, 24, True),
    ]  # fmt: skip
    tiny = [(128, 128, 14, 4, True), (256, 256, 14, 14, True), (256, 128, 28, 2, False)]
    return [
        *(Setting("narrow_svd", *row) for row in small),
        *(Setting("bundled:tiny-svd", *row) for row in tiny),
        *(Setting("bundled:tiny-animatediff", *row) for row in tiny),
        Setting("bundled:tiny-animatediff", 256, 256, 16, 4, conditioning="pia"),
    ]


def table_and_drawn() -> list[Setting]:
    """Rows of the specification's table, and settings that nobody chose."""
    draw = random.Random(7)  # noqa: S311 (no secret)
    drawn = []
    for number in range(24):
        model, conditioning = (
            ("svd", "init") if number < 12 else ("sd15", ["init", "pia", "sparsectrl"][number // 4 % 3])
        )
        drawn.append(drawn_setting(draw, model, conditioning, 13, 0.7))
    table = [Setting("svd", 512, 512, 250, 4), Setting("sd15", 512, 512, 64, 4), Setting("sd15", 768, 768, 32, 2)]
    return [*drawn, *table]


def judged_settings() -> list[Setting]:
    """Drawn, and measured after all was counted and fitted."""
    draw = random.Random(23)  # noqa: S311 (no secret)
    kinds = [
        (16, "svd", "init", "none"), (8, "svd", "init", "model"), (6, "other_svd", "init", "none"),
        (3, "bundled:tiny-svd", "init", "none"), (3, "bundled:tiny-animatediff", "init", "none"),
        *((count, "sd15", conditioning, offload) for conditioning in ("init", "pia", "sparsectrl")
          for count, offload in ((5, "none"), (2, "model"))),
    ]  # fmt: skip
    return [
        replace(drawn_setting(draw, model, conditioning, 21, 0.7), offload=offload, split="judged")
        for count, model, conditioning, offload in kinds
        for _ in range(count)
    ]


def measure_by_measure() -> list[Setting]:
    """Each measure alone, and all together."""
    models = [
        Setting("svd", 768, 448, 25, 4),
        Setting("sd15", 512, 512, 16, 4, conditioning="pia"),
        Setting("sd15", 512, 384, 16, 4, conditioning="sparsectrl"),
    ]
    alone: list[dict[str, Any]] = [{"offload": "layers"}, *({name: True} for name in MEASURES)]
    together: dict[str, Any] = {name: value for measure in alone for name, value in measure.items()}
    return [replace(model, **measures) for model in models for measures in (*alone, together)]


def judged_with_measures() -> list[Setting]:
    """Drawn, with measures that nobody chose, and measured after all was counted and fitted."""
    draw = random.Random(31)  # noqa: S311 (no secret)
    kinds = [(16, "svd", "init"), (5, "other_svd", "init"), (2, "bundled:tiny-svd", "init"),
             *((5, "sd15", conditioning) for conditioning in ("init", "pia", "sparsectrl"))]  # fmt: skip
    return [
        with_measures(draw, replace(drawn_setting(draw, model, conditioning, 9, 0.8), split="judged"))
        for count, model, conditioning in kinds
        for _ in range(count)
    ]


def with_measures(draw: random.Random, setting: Setting) -> Setting:
    """At least one measure, more often than not slices, since there is most to be counted there."""
    offload: Offload = draw.choice(["none", "model", "layers"])
    slices = draw.random() < 0.7
    halves, host_skips = draw.random() < 0.4, draw.random() < 0.4
    window = draw.randrange(4, setting.frames) if setting.frames > 4 and draw.random() < 0.2 else None
    return replace(
        setting,
        offload=offload,
        slices=slices or not (halves or host_skips),
        halves=halves,
        host_skips=host_skips,
        vae_float32=draw.random() < 0.15,
        window_frames=window if window is None else min(window, 32),
    )


def drawn_setting(draw: random.Random, model: str, conditioning: str, chunks: int, guided: float) -> Setting:
    """guided: how often guidance is on."""
    if ":" in model:
        sides, largest = range(64, 257, 8), 25e6
    else:
        sides, largest = (range(256, 833, 64), 25e6) if "svd" in model else (range(256, 833, 8), 9e6)
    width, height, frames = draw.choice(sides), draw.choice(sides), draw.randrange(6, 48)
    if width * height * frames > largest:
        frames = max(2, int(largest / width / height))
    chunk, is_guided = draw.randrange(1, chunks), draw.random() < guided
    return Setting(model, width, height, frames, chunk, is_guided, conditioning=conditioning)


def at_speed_fast() -> list[Setting]:
    """A few to look at, and others that were drawn, with and without measures."""
    known = [Setting("svd", 1024, 576, 25, 4), Setting("sd15", 512, 512, 16, 4), Setting("sd15", 512, 512, 16, 16)]
    draw = random.Random(41)  # noqa: S311 (no secret)
    kinds: list[tuple[int, str, str, Offload]] = [
        (6, "svd", "init", "none"), (2, "svd", "init", "model"), (2, "other_svd", "init", "none"),
        (3, "sd15", "init", "none"), (2, "sd15", "pia", "none"), (2, "sd15", "sparsectrl", "model"),
    ]  # fmt: skip
    drawn = [
        replace(drawn_setting(draw, model, conditioning, 13, 0.8), offload=offload, split="judged")
        for count, model, conditioning, offload in kinds
        for _ in range(count)
    ]
    lean = replace(drawn[0], slices=True, host_skips=True)
    return [replace(setting, speed="fast") for setting in (*known, *drawn, lean)]
