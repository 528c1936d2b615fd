"""Numbers that help to choose among clips: how much moves, how much flickers, how sharp, how true to the picture."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vidkit.errors import InputError
from vidkit.record import stored_pictures
from vidkit.video import read_frames

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    Frames = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

METRICS_MIMETYPE: Final = "application/vnd.vidkit.metrics+json"

#: Pixels: motion is measured on frames made smaller to this shorter side, if the longer one stays below the other
#: limit. Known shifts of 0.5 to 4 % of the width are found to 5 %, as at twice the size, in a quarter of the time.
FLOW_SIDE: Final = 64
FLOW_LONG_SIDE: Final = 256

#: Iterative Lucas-Kanade (Le Besnerais and Champagnat 2005): a window of 11 pixels, 3 warps a level. As exact on known
#: shifts as TV-L1, which takes some six times as long.
FLOW_RADIUS: Final = 5
FLOW_WARPS: Final = 3

#: Pixels of the small frames: what is finer than the first is not followed (linear interpolation would bias it);
#: contrast is evened out over the second, as a share of the shorter side, so that light that changes is no motion.
FINEST: Final = 1.0
EVENED: Final = 1 / 8
#: Luminance (0 to 1): contrast of less than five of 255 levels is not evened up to that of the rest, and a quarter of a
#: level from pixel to pixel is taken for noise, in which any flow could be found.
FAINT: Final = 5 / 255
NOISE: Final = 0.25 / 255

#: Pixels of the small frames: flicker is a change of areas, not of edges that are a fraction of a pixel off.
FLICKER_AREA: Final = 2.0

#: dB: JSON has no infinity, and a PSNR of over 100 dB is a difference of under 0.003 levels. It stands for "identical".
IDENTICAL_PSNR: Final = 100.0


@dataclass(frozen=True)
class ClipMetrics:
    """What was measured of a clip; rows of sweeps have the same names.

    motion: mean length of the optical flow from a frame to the next, percent of the width.
    flicker: mean change of luminance from a frame to the next, along the motion, percent of black to white.
    sharpness: variance of the Laplacian over the variance of the luminance, mean of all frames; it is comparable among
        clips of the same size and picture, and noise raises it.
    first_frame_psnr (dB, at most 100), first_frame_ssim (up to 1): the first frame against the fitted input picture;
        None where no picture was given.
    """

    motion: float
    flicker: float
    sharpness: float
    first_frame_psnr: float | None = None
    first_frame_ssim: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """As in a run's manifest: camelCase keys, finite numbers or null."""
        values = asdict(self)
        return {
            "motion": values["motion"],
            "flicker": values["flicker"],
            "sharpness": values["sharpness"],
            "firstFramePsnr": values["first_frame_psnr"],
            "firstFrameSsim": values["first_frame_ssim"],
        }

    def rows(self) -> list[tuple[str, str]]:
        """Name and value with its unit, to be read."""
        psnr, ssim = self.first_frame_psnr, self.first_frame_ssim
        return [
            ("Motion", f"{self.motion:.2f} % of the width per frame"),
            ("Flicker", f"{self.flicker:.2f} % of full luminance per frame"),
            ("Sharpness", f"{self.sharpness:.4f}"),
            ("First frame, PSNR", "no picture" if psnr is None else f"{psnr:.1f} dB"),
            ("First frame, SSIM", "no picture" if ssim is None else f"{ssim:.3f}"),
        ]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """In a notebook, a small table; and for programs that read the notebook, the numbers."""
        cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{value}</td></tr>" for name, value in self.rows())
        return {
            "text/plain": "\n".join(f"{name}: {value}" for name, value in self.rows()),
            "text/html": f"<table>{cells}</table>",
            METRICS_MIMETYPE: self.to_json(),
        }


def measure(frames: Frames | str | Path, first: Image.Image | Frames | None = None) -> ClipMetrics:
    """Measure a clip; 0.1 s for 14 frames of 128x128, a second for 25 frames of 1024x576.

    Args:
        frames: RGB, uint8, `(frames, height, width, 3)`; or a clip's file, whose stored picture is `first` if there is
            one and none is given.
        first: the fitted input picture, of the frames' size: an image, or `(height, width, 3)` uint8.

    Raises:
        InputError: `clip_not_found`, `invalid_clip`; `invalid_size`, when `first` has another size than the frames.
        ValueError: frames of another shape or type.
    """
    if isinstance(frames, (str, Path)):
        path = Path(frames)
        frames = read_frames(path)
        first = first if first is not None else next(iter(stored_pictures(path)), None)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(f"frames: uint8 (frames, height, width, 3) wanted, not {frames.dtype} {frames.shape}")
    motion, flicker = motion_and_flicker(frames)
    psnr, ssim = (None, None) if first is None else fidelity(frames[0], first)
    return ClipMetrics(
        motion=round(motion, 4),
        flicker=round(flicker, 4),
        sharpness=round(float(np.mean([sharpness(frame) for frame in frames])), 6),
        first_frame_psnr=None if psnr is None else round(psnr, 2),
        first_frame_ssim=None if ssim is None else round(ssim, 4),
    )


class SmallFrame(NamedTuple):
    """A frame as its motion is seen; all `(height, width)` float32.

    luminance: in [0, 1], each pixel the mean of an area of the frame.
    details: the luminance with its contrast evened out, so that changing light has little effect.
    """

    luminance: Floats
    details: Floats


def motion_and_flicker(frames: Frames) -> tuple[float, float]:
    """Means over all pairs of neighbouring frames, in percent as in `ClipMetrics`; 0 and 0 for a single frame."""
    small = [small_frame(frame) for frame in frames]
    pairs = [pair_motion_and_flicker(this, following) for this, following in pairwise(small)]
    if not pairs:
        return 0.0, 0.0
    motion, flicker = np.mean(pairs, axis=0)
    return float(motion), float(flicker)


def pair_motion_and_flicker(this: SmallFrame, following: SmallFrame) -> tuple[float, float]:
    """Motion: mean length of the flow. Flicker: mean of |following, moved back along the flow, minus this|, after a
    Gaussian blur of `FLICKER_AREA`; where the flow leads out of the picture nothing is counted. Both in percent.
    """
    from scipy import ndimage  # type: ignore[import-untyped]
    from skimage.registration import optical_flow_ilk

    found = optical_flow_ilk(  # type: ignore[no-untyped-call]
        this.details, following.details, radius=FLOW_RADIUS, num_warp=FLOW_WARPS, dtype=np.float32
    )
    flow = without_noise(found, this.luminance)
    height, width = this.luminance.shape
    rows, columns = np.mgrid[:height, :width] + flow
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    change = ndimage.map_coordinates(following.luminance, [rows, columns], order=1, mode="nearest") - this.luminance
    blurred = np.abs(ndimage.gaussian_filter(np.where(inside, change, 0), FLICKER_AREA))
    share = ndimage.gaussian_filter(inside.astype(np.float32), FLICKER_AREA)  # of the blur that is inside
    flicker = float((blurred[inside] / share[inside]).mean()) if inside.any() else 0.0
    return 100 * float(np.hypot(*flow).mean()) / width, 100 * flicker


def small_frame(frame: Frames) -> SmallFrame:
    from scipy import ndimage

    luminance = small_luminance(frame)
    area = EVENED * min(luminance.shape)
    details = ndimage.gaussian_filter(luminance, FINEST)
    details = details - ndimage.gaussian_filter(details, area)
    return SmallFrame(luminance, details / (np.sqrt(ndimage.gaussian_filter(details**2, area)) + FAINT))


def without_noise(flow: Floats, luminance: Floats) -> Floats:
    """The flow `(2, height, width)` as far as the picture shows it: what only noise decided becomes 0.

    Lucas-Kanade solves A flow = b, A being the sums of products of the gradients in a window, whatever A is. This is
    (A + noise)^-1 A flow, its ridge regression: along an edge, and where nothing is to be seen, the flow is shrunk.
    """
    from scipy import ndimage

    down, across = np.gradient(ndimage.gaussian_filter(luminance, FINEST))
    (dd, da, aa) = (
        ndimage.uniform_filter(product, 2 * FLOW_RADIUS + 1, mode="mirror")
        for product in (down * down, down * across, across * across)
    )
    target = dd * flow[0] + da * flow[1], da * flow[0] + aa * flow[1]
    dd, aa = dd + NOISE**2, aa + NOISE**2
    determinant = dd * aa - da * da
    shrunk: Floats = np.stack([aa * target[0] - da * target[1], dd * target[1] - da * target[0]]) / determinant
    return shrunk


def small_luminance(frame: Frames) -> Floats:
    from PIL import Image

    luminance = Image.fromarray(frame).convert("L").convert("F")
    scale = min(1.0, FLOW_SIDE / min(luminance.size), FLOW_LONG_SIDE / max(luminance.size))
    width, height = (max(1, round(side * scale)) for side in luminance.size)
    small = np.asarray(luminance.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    return small / np.float32(255)


def sharpness(frame: Frames) -> float:
    """Variance of the Laplacian over the variance of the luminance: free of contrast; 0 for an even picture."""
    from PIL import Image
    from scipy import ndimage

    luminance = np.asarray(Image.fromarray(frame).convert("L"), dtype=np.float32)
    spread = float(luminance.var())
    return float(ndimage.laplace(luminance).var()) / spread if spread > 0 else 0.0


def fidelity(frame: Frames, picture: Image.Image | Frames) -> tuple[float, float]:
    """PSNR (dB, at most `IDENTICAL_PSNR`) and SSIM of a frame against the picture it should show."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    expected = np.asarray(picture if isinstance(picture, np.ndarray) else picture.convert("RGB"))
    if expected.shape != frame.shape:
        height, width = frame.shape[:2]
        raise InputError(
            "invalid_size",
            f"The picture is {expected.shape[1]}x{expected.shape[0]}, the frames are {width}x{height}.",
            [f"Fit it first: vidkit.images.fit_image(picture, {width}, {height})"],
        )
    identical = np.array_equal(expected, frame)
    psnr = IDENTICAL_PSNR if identical else peak_signal_noise_ratio(expected, frame)  # type: ignore[no-untyped-call]
    window = min(7, *(side - 1 + side % 2 for side in frame.shape[:2]))  # odd, and no larger than the frame
    ssim = structural_similarity(expected, frame, win_size=window, channel_axis=-1)  # type: ignore[no-untyped-call]
    return min(float(psnr), IDENTICAL_PSNR), float(ssim)
