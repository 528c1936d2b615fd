"""What a clip looks like, as far as numbers tell: a broken computation shows in them, a dull clip does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vidkit.finding import Finding, note, ok, problem
from vidkit.metrics import measure, small_luminance
from vidkit.model_check.making import Clip
from vidkit.params import GenerationParams
from vidkit.record import stored_pictures
from vidkit.video import probe, read_frames

if TYPE_CHECKING:
    import numpy.typing as npt

    Frames = npt.NDArray[np.uint8]

#: standard deviation of the frames over that of the picture: below it is about one colour, which overflows give
FLAT: Final = 0.2
#: `ClipMetrics.sharpness` of white noise is 20, of photographs below 1: a clip above this is noise, as an autoencoder
#: makes of latents that are not its own
NOISE: Final = 6.0
#: correlation of the first frame's luminance with the picture's: 0.98 with the bundled models that begin with the
#: picture, 0.0 with the same picture mirrored
LIKE: Final = 0.5
#: of full luminance: a difference that nobody sees
SAME: Final = 0.03
#: percent of the width per frame: less is no motion that anybody sees
STILL: Final = 0.02
#: dB between the frames and what the file gives back: H.264 at vidkit's quality gives 40, pure noise 25
READ_BACK: Final = 25.0


def picture(clip: Clip, params: GenerationParams) -> Iterator[Finding]:
    """Of the frames before compression, against the picture that they were made of."""
    given = np.asarray(stored_pictures(clip.file)[0].convert("RGB"))
    found = measure(clip.frames, given)
    contrast, usual = float(clip.frames.std()), float(given.std())
    data: dict[str, Any] = {
        "brightness": round(float(clip.frames.mean()), 1),
        "contrast": round(contrast, 1),
        "pictureBrightness": round(float(given.mean()), 1),
        "pictureContrast": round(usual, 1),
        **found.to_json(),
    }
    what = (
        f"Brightness {clip.frames.mean():.0f} of 255, contrast {contrast:.0f} (the picture's: {given.mean():.0f}, "
        f"{usual:.0f}), sharpness {found.sharpness:.2f}, flicker {found.flicker:.2f} %"
    )
    other_parts = "Check that the parts belong together: vidkit models inspect; fetch the model again"
    if contrast < FLAT * usual:
        black = "black" if clip.frames.mean() < 8 else "about one colour"
        yield problem("picture", f"{what}: the clip is {black}.", other_parts, "Another VAE or base model", **data)
    elif found.sharpness > NOISE:
        yield problem("picture", f"{what}: the clip is noise.", other_parts, "Use more steps", **data)
    else:
        yield ok("picture", f"{what}: neither black nor flat nor noise.", **data)
    yield first_frame(clip.frames[0], given, params, found.first_frame_psnr, found.first_frame_ssim)
    yield motion(found.motion)


def first_frame(
    frame: Frames, given: Frames, params: GenerationParams, psnr: float | None, ssim: float | None
) -> Finding:
    topic, like = "first frame", likeness(frame, given)
    what = f"Its likeness to the picture: correlation {like:.2f}, {psnr or 0:.1f} dB PSNR, SSIM {ssim or 0:.2f}"
    data: dict[str, Any] = {"correlation": round(like, 4), "psnr": psnr, "ssim": ssim}
    if like >= LIKE:
        return ok(topic, f"{what}.", **data)
    if params.pipeline == "animatediff" and params.conditioning == "init":
        return note(topic, f"{what}: conditioning init repaints it.", "A lower --strength keeps more of it", **data)
    return problem(
        topic,
        f"{what}: it does not show the picture, with which such a clip begins.",
        "Use more steps (--num-inference-steps 25); if that does not help, fetch the model again",
        **data,
    )


def likeness(frame: Frames, given: Frames) -> float:
    """Correlation of their luminances made small, -1 to 1. An even picture has none: then 1 where they are as bright
    everywhere, else 0.
    """
    one, other = (small_luminance(image).ravel() for image in (frame, given))
    spread = float(one.std() * other.std())
    if spread < 1e-9:
        return float(abs(one - other).max() < SAME)
    return float(((one - one.mean()) * (other - other.mean())).mean()) / spread


def motion(found: float) -> Finding:
    what = f"{found:.2f} % of the width per frame"
    if found >= STILL:
        return ok("motion", f"{what}.", percentPerFrame=found)
    return note(
        "motion",
        f"{what}: nothing moves.",
        "svd: raise --motion-bucket-id; animatediff: check that the motion adapter is for this base, or raise strength",
        percentPerFrame=found,
    )


def file(clip: Clip) -> Finding:
    """The written clip, read back."""
    topic, told, back = "file", probe(clip.file), read_frames(clip.file)
    what = f"{told.codec} {told.pixel_format}, {told.frames} frames, {clip.file.stat().st_size / 1e6:.2f} MB"
    data: dict[str, Any] = {"codec": told.codec, "pixelFormat": told.pixel_format, "frames": told.frames}
    if back.shape != clip.frames.shape:
        return problem(topic, f"{what}: it does not read back as written.", "See vidkit doctor: ffmpeg", **data)
    error = float(((back.astype(np.float32) - clip.frames) ** 2).mean())
    kept = float(10 * np.log10(255**2 / max(error, 1e-9)))
    what += f", {kept:.0f} dB after compression"
    if kept < READ_BACK:
        return problem(topic, f"{what}: other than was computed.", "See vidkit doctor: ffmpeg", psnr=kept, **data)
    return ok(topic, f"{what}; reads back whole, with its settings in it.", psnr=round(kept, 1), **data)
