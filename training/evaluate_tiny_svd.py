"""How good `tiny-svd` is on photographs: `python -m training.evaluate_tiny_svd MODEL PHOTOGRAPHS [--sheet FILE]`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image, ImageOps

from benchmarks.motion import fit_motion, psnr


def photographs(folder: Path, size: int) -> list[Image.Image]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
    return [ImageOps.fit(Image.open(p).convert("RGB"), (size, size), Image.Resampling.LANCZOS) for p in files]


@torch.no_grad()
def clips(
    pipe: StableVideoDiffusionPipeline, pictures: list[Image.Image], bucket: int, seed: int, **options: object
) -> torch.Tensor:
    """(pictures, frames, 3, size, size) in [0, 1]."""
    settings = {"num_inference_steps": 8, "max_guidance_scale": 1.0, "decode_chunk_size": 4} | options
    made = []
    for picture in pictures:
        generator = torch.Generator().manual_seed(seed)
        made.append(
            pipe(picture, picture.height, picture.width, motion_bucket_id=bucket, generator=generator,
                 output_type="pt", **settings).frames[0]
        )  # fmt: skip
    return torch.stack(made).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--buckets", type=int, nargs="+", default=[0, 20, 60, 127, 255])
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = StableVideoDiffusionPipeline.from_pretrained(options.model, torch_dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    pictures = photographs(options.photographs, options.size)
    given = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures]).to(device)
    given = given.view(-1, options.size, options.size, 3).permute(0, 3, 1, 2).float() / 255
    extra = {"num_inference_steps": options.steps, "max_guidance_scale": options.guidance}
    extra |= {"num_frames": options.frames} if options.frames else {}
    with torch.no_grad():
        latents = pipe.vae.encode(given * 2 - 1).latent_dist.mode()
        rebuilt = torch.cat([pipe.vae.decode(z[None], num_frames=1).sample for z in latents]) / 2 + 0.5
    print("autoencoder alone:", [round(x, 1) for x in psnr(rebuilt.clamp(0, 1), given).tolist()])
    rows = []
    for bucket in options.buckets:
        started = time.time()
        made = torch.cat([clips(pipe, pictures, bucket, seed, **extra) for seed in range(options.seeds)])
        seconds = (time.time() - started) / len(made)
        motion = fit_motion(made[:, 0], made[:, -1])
        first = psnr(made[:, 0], given.repeat(options.seeds, 1, 1, 1))
        print(
            f"bucket {bucket:3d}: first frame {first.mean():.2f} (min {first.min():.2f}) dB, moved "
            f"{100 * motion.displacement.mean():.2f} % of the width, coherence {motion.psnr.mean():.2f} "
            f"(min {motion.psnr.min():.2f}) dB, {100 * (motion.psnr < 17).float().mean():.1f} % under 17 dB, "
            f"{len(set(motion.move))} moves, {seconds:.2f} s a clip"
        )
        print("   ", motion.move[:: len(pictures)], flush=True)
        rows.append(made[:: max(1, len(made) // 6)][:6, :: max(1, made.shape[1] // 5)])
    if options.sheet:
        sheet = torch.cat([torch.cat([torch.cat(list(clip), -1) for clip in row], -2) for row in rows], -1)
        Image.fromarray((sheet.permute(1, 2, 0).clamp(0, 1) * 255).byte().cpu().numpy()).save(options.sheet)


if __name__ == "__main__":
    main()
