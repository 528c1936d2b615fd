"""Train `tiny-svd`'s UNet and image encoder: `python -m training.train_svd --state DIR --minutes M [--progress A B]`.

Resumable: the state folder holds the raw and the averaged weights (half precision, the optimiser is rebuilt) and the
log. `--progress A B` says which part of the whole schedule this run is (0 the start, 1 the end); the noise code's
loudness and the learning rate follow it.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from .camera import AMPLITUDE, affine_path, boost_code, move_from_code, read_code, warp_clip
from .code_reader import install, make_probe, middle_of, unread
from .pictures import PicturePool
from .refine import chance, channel_weights, clean_estimate, clip_loss, log_uniform, per_clip
from .rollout import AGES, Group, Rollout
from .state import Clock, Log, describe_run, load_weights, prepare_torch, run_parser, save_weights
from .tiny_svd import FRAMES, SIGMA_MAX, SIZE, TinySvd, clip_pixels
from .train_vae import POOL_SIDE
from .trainer import SAVE_EVERY, Average, Trainer, frozen

RATE = 1.5e-3
LOUD_UNTIL = 0.3
READING = 0.3  # weight of the probe's error


def boost_at(now: float) -> float:
    """The noise code's loudness: 6 at first, 1 (plain noise) from LOUD_UNTIL of the schedule on."""
    return 6.0 ** max(0.0, 1 - now / LOUD_UNTIL)


def draw_bucket(batch: int, device: torch.device) -> Tensor:
    """Half evenly, half towards the large moves, which are harder; a few at zero, which must stand quite still."""
    bucket = 255 * torch.rand(batch, device=device) ** torch.where(chance(0.5, batch, device), 1.0, 0.5)
    return torch.where(chance(0.05, batch, device), 0.0, bucket.round())


def first_state(latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Where sampling starts: nothing but noise at the highest level; sometimes any level over the right clip."""
    count, device = len(latents), latents.device
    start = chance(0.6, count, device)
    highest = torch.full((count,), SIGMA_MAX, device=device)
    sigma = log_uniform(torch.where(start, 0.85 * SIGMA_MAX, 0.05), highest)
    content = torch.where(per_clip(start), torch.zeros_like(latents), latents)
    return content + per_clip(sigma) * noise, sigma


def draw_batch(vae: torch.nn.Module, pool: PicturePool, batch: int, boost: float) -> dict[str, Tensor]:
    """Noise, the latents of the clip that its code stands for, and the conditions that the pipeline would give."""
    device = pool.pictures.device
    size = SIZE // 4
    noise = boost_code(torch.randn(batch, FRAMES, vae.config.latent_channels, size, size, device=device), boost)
    bucket = draw_bucket(batch, device)
    move = move_from_code(read_code(noise))
    path = affine_path(move, AMPLITUDE * bucket / 255, FRAMES)
    clips = warp_clip(pool.draw(batch, 2 * SIZE), path, SIZE)
    augmentation = torch.where(chance(0.7, batch, device), 0.02, 0.15 * torch.rand(batch, device=device))
    first = clips[:, 0]
    noisy_first = first + augmentation[:, None, None, None] * torch.randn_like(first)
    encoded = vae.encode(torch.cat([clips.flatten(0, 1), noisy_first]).to(vae.dtype)).latent_dist.mode().float()
    kept = (~chance(0.05, batch, device)).float()
    fps = torch.randint(4, 31, (batch,), device=device).float()
    latents = encoded[:-batch].unflatten(0, (batch, FRAMES))
    state, sigma = first_state(latents, noise)
    return {
        "state": state,
        "sigma": sigma,
        "latents": latents,
        "image_latents": encoded[-batch:] * kept[:, None, None, None],
        "pixels": clip_pixels(first),
        "kept": kept,
        "time_ids": torch.stack([fps - 1, bucket, augmentation], 1),
        "guidance": torch.ones_like(bucket),
        "move": move,
    }


def unet_loss(
    unet: torch.nn.Module,
    encoder: torch.nn.Module,
    probe: torch.nn.Linear,
    inputs: dict[str, Tensor],
    channel_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(batch,) losses, the estimate of the clean latents (batch, frames, channels, h, w), and what is `unread`."""
    dtype = next(unet.parameters()).dtype
    state, sigma = inputs["state"], inputs["sigma"]
    condition = inputs["image_latents"][:, None].expand(-1, state.shape[1], -1, -1, -1)
    embedding = encoder(inputs["pixels"].to(dtype)).image_embeds[:, None] * inputs["kept"][:, None, None]
    with middle_of(unet) as middle:
        velocity = unet(
            torch.cat([state / per_clip(sigma**2 + 1).sqrt(), condition], 2).to(dtype),
            0.25 * sigma.log(),
            encoder_hidden_states=embedding.to(dtype),
            added_time_ids=inputs["time_ids"],
            return_dict=False,
        )[0].float()
    estimate = clean_estimate(velocity, state, sigma)
    not_told = unread(probe, middle[0], inputs["move"])
    losses = clip_loss(estimate, inputs["latents"], sigma, channel_weights) + READING * not_told
    return losses, estimate, not_told


def train(
    model: TinySvd,
    average: TinySvd,
    pool: PicturePool,
    clock: Clock,
    log: Log,
    batch: int,
    compiled: bool,
    save: Callable[[], None],
) -> None:
    vae = frozen(model.vae, compiled)
    trained = {"unet": model.unet, "image_encoder": model.image_encoder}
    probe = make_probe(model.unet).to(pool.pictures.device)
    trainer = Trainer(trained | {"probe": probe}, RATE, 0.02, compiled)
    ema = Average(list(trained.values()), [average.unet, average.image_encoder])
    with torch.no_grad():
        weights = channel_weights(model.vae, model.vae.encode(pool.draw(8, SIZE)).latent_dist.mode())
    log.write(stage="unet", channel_weights=[round(w, 3) for w in weights.tolist()])
    loss = functools.partial(unet_loss, channel_weights=weights)
    rollout = Rollout(Group.paired(max(1, batch // AGES), batch, pairs=0))
    running: list[Tensor] = []
    while not clock.over:
        with torch.no_grad():
            drawn = draw_batch(vae, pool, batch, boost_at(clock.now))
        losses, answer, not_told = trainer.gradient(loss, drawn)
        trainer.step(clock)
        going = rollout.enter(drawn, answer)
        later, mended, _ = trainer.gradient(loss, going)
        trainer.step(clock)
        rollout.go_on(mended)
        ema.update(clock.step)
        errors = [(x - y["latents"]).square().mean() for x, y in ((answer, drawn), (mended, going))]
        running.append(torch.stack([losses.mean(), later.mean(), *errors, not_told.mean()]))
        if clock.step % 200 == 0:
            first, second, error, mended_error, not_told_mean = torch.stack(running).mean(0).tolist()
            running.clear()
            log.write(
                stage="unet", step=clock.step, now=clock.now, seconds=clock.elapsed, loss=first, loss_later=second,
                error=error, error_later=mended_error, unread=not_told_mean, boost=boost_at(clock.now),
            )  # fmt: skip
        if clock.step % SAVE_EVERY == SAVE_EVERY - 1:
            save()
        clock.tick()
    save()
    log.write(stage="unet", steps=clock.step, seconds=clock.elapsed, now=clock.now)


def main() -> None:
    parser = run_parser(__doc__, batch=20, pictures=12_000)
    parser.add_argument("--compile", action="store_true", help="compile the layers first: a minute, then faster")
    options = parser.parse_args()
    device = prepare_torch(options.seed)
    log = Log(options.state)
    describe_run(log, "unet", options)
    model = TinySvd.fresh()
    install(model.unet)
    model.to(device)
    for name, part in model.parts().items():
        load_weights(part, options.state, name)
    average = copy.deepcopy(model)
    for name, part in average.parts().items():
        load_weights(part, options.state, f"average_{name}")
    started = time.time()
    pool = PicturePool(options.pictures, POOL_SIDE if device == "cuda" else 2 * SIZE, device)
    log.write(stage="unet", pictures=options.pictures, seconds=time.time() - started)
    clock = Clock(options.minutes, tuple(options.progress), options.steps)

    def save() -> None:
        for name in ("unet", "image_encoder"):
            save_weights(model.parts()[name], options.state, name)
            save_weights(average.parts()[name], options.state, f"average_{name}")

    train(model, average, pool, clock, log, options.batch, options.compile, save)


if __name__ == "__main__":
    main()
