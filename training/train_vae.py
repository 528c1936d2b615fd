"""Train an autoencoder from nothing: `python -m training.train_vae svd|animatediff --state DIR --minutes M`.

Latents are trained to move as pictures do: half of the clips are decoded from the first frame's latents, moved by the
camera, and must give the moved pictures (Kouzelis et al., "EQ-VAE", 2025). What the UNet has to learn is then closer to
a plain move of its input.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from . import tiny_animatediff, tiny_svd
from .camera import AMPLITUDE, affine_path, move_from_code, warp, warp_clip
from .pictures import PicturePool
from .refine import decode
from .state import Clock, Log, describe_run, load_weights, prepare_torch, run_parser, save_weights
from .tiny_svd import SIZE
from .trainer import Trainer

RATE = 1.5e-3
EQUIVARIANT = 0.5  # the share of clips whose latents are moved instead of encoded
POOL_SIDE = 448


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def vae_loss(vae: torch.nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """L1, L1 of the edges, squared error and a weak KL of clips (batch, frames, 3, size, size); the squared error."""
    clips, path, moved = inputs["clips"], inputs["path"], inputs["moved"][:, None, None, None, None]
    batch, frames = clips.shape[:2]
    dtype = next(vae.parameters()).dtype
    posterior = vae.encode(clips.flatten(0, 1).to(dtype)).latent_dist
    latents = posterior.sample().unflatten(0, (batch, frames))
    latents = torch.where(moved, warp(latents[:, 0].float(), path).to(dtype), latents).flatten(0, 1)
    # what the UNet hands the decoder is never quite clean
    latents = latents + 0.05 * torch.rand_like(latents[:, :1, :1, :1]) * torch.randn_like(latents)
    decoded = decode(vae, latents, frames).float()
    decoded, wanted = decoded.unflatten(0, (batch, frames)), clips
    error = (decoded - wanted).square()
    edge = sum((a - b).abs().mean((1, 2, 3, 4)) for a, b in zip(edges(decoded), edges(wanted), strict=True))
    kl = posterior.kl().float().unflatten(0, (batch, frames)).mean(1) / latents[0].numel()
    loss = (decoded - wanted).abs().mean((1, 2, 3, 4)) + edge + 2 * error.mean((1, 2, 3, 4)) + 1e-5 * kl
    return loss, error.mean((1, 2, 3, 4))


@torch.no_grad()
def fold_scale(vae: torch.nn.Module, clips: Tensor) -> Tensor:
    """Give every latent channel unit deviation by scaling the weights on both sides; exact. Returns what it was."""
    channels = vae.config.latent_channels
    deviation = vae.encode(clips.flatten(0, 1)).latent_dist.mode().float().std((0, 2, 3))
    quant, conv_in = vae.quant_conv, vae.decoder.conv_in
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] /= deviation
    quant.bias[channels:] -= 2 * deviation.log()
    if getattr(vae, "post_quant_conv", None) is not None:
        vae.post_quant_conv.weight *= deviation[None, :, None, None]
    else:
        conv_in.weight *= deviation[None, :, None, None]
    return deviation


def draw_inputs(pool: PicturePool, batch: int, frames: int, side: int) -> dict[str, Tensor]:
    """Clips of `side` pixels, the paths they moved along, and which of them are to be decoded from moved latents."""
    device = pool.pictures.device
    path = affine_path(
        move_from_code(torch.randn(batch, 4, device=device)), AMPLITUDE * torch.rand(batch, device=device), frames
    )
    clips = warp_clip(pool.draw(batch, 2 * side), path, side)
    return {"clips": clips, "path": path, "moved": torch.rand(batch, device=device) < EQUIVARIANT}


def train(vae: torch.nn.Module, pool: PicturePool, clock: Clock, log: Log, batch: int) -> None:
    """Three quarters of the schedule on pictures of half the size (four times the steps), the rest on whole ones."""
    fresh = clock.progress[0] == 0
    if fresh:
        with torch.no_grad():
            vae.quant_conv.bias[vae.config.latent_channels :] = -6.0  # start with quiet latents: deviation exp(-3)
    else:  # the decoder alone: the UNet knows the latents by now
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    trainer = Trainer({"vae": vae}, RATE, weight_decay=0.01)
    while not clock.over:
        frames = (1, 2, 4, 7)[clock.step % 4]
        side, size = (SIZE // 2, batch) if clock.now < 0.75 else (SIZE, batch // 2)
        losses, errors = trainer.gradient(vae_loss, draw_inputs(pool, max(2, size // frames), frames, side))
        trainer.step(clock)
        if clock.step % 500 == 0:
            psnr = 10 * (4 / errors.mean()).log10()
            log.write(stage="vae", step=clock.step, seconds=clock.elapsed, loss=losses.mean().item(), psnr=psnr.item())
        clock.tick()
    deviation = fold_scale(vae, draw_inputs(pool, 64, 1, SIZE)["clips"]).tolist() if fresh else None
    log.write(stage="vae", folded=deviation, steps=clock.step, seconds=clock.elapsed)


def main() -> None:
    parser = run_parser(__doc__, batch=128, pictures=8000)
    parser.add_argument("model", choices=["svd", "animatediff"])
    options = parser.parse_args()
    device = prepare_torch(options.seed)
    log = Log(options.state)
    describe_run(log, "vae", options)
    vae = {"svd": tiny_svd, "animatediff": tiny_animatediff}[options.model].make_vae().to(device)
    load_weights(vae, options.state, "vae")
    started = time.time()
    pool = PicturePool(options.pictures, POOL_SIDE if device == "cuda" else 2 * SIZE, device)
    log.write(stage="vae", pictures=options.pictures, seconds=time.time() - started)
    train(vae, pool, Clock(options.minutes, tuple(options.progress), options.steps), log, options.batch)
    save_weights(vae, options.state, "vae")


if __name__ == "__main__":
    main()
