"""Train `tiny-animatediff`'s UNet and motion adapter: `python -m training.train_animatediff --state DIR --minutes M`.

The state folder must hold the autoencoder (`train_vae`) and the text encoder (`train_text`). Resumable as `train_svd`.

The words decide the move, so the noise needs no code. Two things more than `train_svd` does:

- Classifier-free guidance must not tear the picture. Some clips are in the batch twice, with and without a move in the
  prompt, and the second state of both is their answers as guidance would mix them, at any scale. A prompt that names no
  move asks for a slow zoom in as long as nothing is to be seen yet, and for whatever move is already there later on; so
  the two answers agree, and guidance changes nothing, once the move is decided.
- A quarter of the clips come without the picture's latents, and start from the picture at rest under noise: what
  diffusers' video-to-video pipeline does (conditioning `init`).
"""

from __future__ import annotations

import copy
import functools
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import PIAPipeline
from torch import Tensor

from .camera import affine_path, named_moves, warp_clip
from .pictures import PicturePool
from .prompts import MOVES, NO_MOVE, draw_prompt
from .refine import chance, channel_weights, clean_estimate, clip_loss, log_uniform, per_clip
from .rollout import AGES, MAX_GUIDANCE, Group, Rollout
from .state import Clock, Log, describe_run, load_weights, prepare_torch, run_parser, save_weights
from .tiny_animatediff import FRAMES, SIGMA_MAX, SIZE, TinyAnimateDiff
from .train_text import make_tokenizer, tokenize, word_list
from .train_vae import POOL_SIDE
from .trainer import SAVE_EVERY, Average, Trainer, frozen

RATE = 1.5e-3
#: mean displacement over the clip, as a fraction of the width, at PIA's motion scales 0, 1 and 2
AMPLITUDES = (0.075, 0.09, 0.105)
DEFAULT_AMPLITUDE = 0.04  # of the slow zoom in
PAIRED = 0.25  # share of the clips that are in the batch twice
WITHOUT_PICTURE = 0.25


class Prompts:
    """Embeddings of many prompts for each move, and for none, encoded once: the text encoder is trained before."""

    def __init__(self, model: TinyAnimateDiff, state: Path, count: int, device: str) -> None:
        tokenizer, vocabulary = make_tokenizer(state / "tokenizer"), word_list()
        draw = random.Random(0)  # noqa: S311
        embeddings = []
        with torch.no_grad():
            for move in range(NO_MOVE + 1):
                tokens = tokenize(tokenizer, [draw_prompt(move, draw, vocabulary) for _ in range(count)]).to(device)
                embeddings.append(model.text_encoder(tokens).last_hidden_state)
        self.embeddings = torch.stack(embeddings)  # (moves + 1, count, 77, channels)

    def draw(self, moves: Tensor) -> Tensor:
        """(batch, 77, channels): a prompt each for the moves (batch,)."""
        return self.embeddings[moves, torch.randint(self.embeddings.shape[1], moves.shape, device=moves.device)]


def mask_table(device: str) -> Tensor:
    """(motion scales, frames): the values of PIA's mask channel."""
    values = sys.modules[PIAPipeline.__module__].prepare_mask_coef_by_statistics
    return torch.tensor([values(FRAMES, 0, scale) for scale in range(len(AMPLITUDES))], device=device)


@dataclass
class Tables:
    """Constants on the device."""

    masks: Tensor
    moves: Tensor
    amplitudes: Tensor
    weights: Tensor


def again(values: Tensor, pairs: int) -> Tensor:
    """The batch with its first `pairs` entries once more at the end."""
    return torch.cat([values, values[:pairs]])


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(per_clip(condition), a, b)


def first_state(clips: Tensor, shown: Tensor, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """States (count + pairs, ...) and levels at which sampling starts, and which of them they are (the others are any
    level over the right clip). It starts from noise alone; without the picture from the picture at rest under noise.

    clips: (count + pairs, frames, channels, h, w), the right ones.
    """
    count, device = len(clips) - pairs, clips.device
    start = chance(0.7, count, device)
    highest = torch.full((count,), SIGMA_MAX, device=device)
    lowest = torch.where(start, torch.where(shown[:count], 0.85 * SIGMA_MAX, 1.0), 0.05)
    sigma = again(log_uniform(lowest, highest), pairs)
    start = again(start, pairs)
    rest = where(shown, torch.zeros_like(clips), clips[:, :1].expand_as(clips))
    noise = again(torch.randn_like(clips[:count]), pairs)
    return where(start, rest, clips) + per_clip(sigma) * noise, sigma, start


def draw_batch(
    vae: torch.nn.Module, prompts: Prompts, pool: PicturePool, tables: Tables, batch: int, pairs: int
) -> dict[str, Tensor]:
    """`batch` clips, of which the first `pairs` come again at the end with a prompt that asks for no move.

    `latents` is the asked clip; `target` is too, but for a clip without words as long as no move is to be seen: then it
    is the slow zoom in. `guidance` is the scale at which the two answers of a pair are to be mixed.
    """
    device = pool.pictures.device
    moves = torch.randint(len(MOVES), (batch,), device=device)
    scale = torch.randint(len(AMPLITUDES), (batch,), device=device) * chance(0.5, batch, device)
    asked = affine_path(tables.moves[moves], tables.amplitudes[scale], FRAMES)
    slow = affine_path(
        tables.moves[torch.zeros_like(moves[:pairs])], torch.full((pairs,), DEFAULT_AMPLITUDE, device=device), FRAMES
    )
    pictures = pool.draw(batch, 2 * SIZE)
    clips = warp_clip(torch.cat([pictures, pictures[:pairs]]), torch.cat([asked, slow]), SIZE)
    encoded = vae.encode(clips.flatten(0, 1).to(vae.dtype)).latent_dist.mode().float().unflatten(0, (-1, FRAMES))
    latents, default = again(encoded[:batch], pairs), encoded[batch:]
    shown = again(~chance(WITHOUT_PICTURE, batch, device), pairs)
    words = torch.cat([moves, torch.full((pairs,), NO_MOVE, device=device)])
    state, sigma, start = first_state(latents, shown, pairs)
    return {
        "state": state,
        "sigma": sigma,
        "latents": latents,
        "target": torch.cat([latents[:batch], where(start[batch:], default, latents[batch:])]),
        "guidance": again(1 + (MAX_GUIDANCE - 1) * torch.rand(batch, device=device), pairs),
        "mask": again(tables.masks[scale], pairs) * shown[:, None],
        "image_latents": latents[:, 0] * shown[:, None, None, None],
        "words": prompts.draw(words),
    }


def unet_loss(unet: torch.nn.Module, inputs: dict[str, Tensor], channel_weights: Tensor) -> tuple[Tensor, Tensor]:
    """(batch,) losses, and the estimate of the clean latents (batch, frames, channels, h, w)."""
    dtype = next(unet.parameters()).dtype
    state, sigma = inputs["state"], inputs["sigma"]
    mask = per_clip(inputs["mask"].flatten()).view(*state.shape[:2], 1, 1, 1).expand(-1, -1, -1, *state.shape[-2:])
    image = inputs["image_latents"][:, None].expand(-1, state.shape[1], -1, -1, -1)
    given = torch.cat([state / per_clip(sigma**2 + 1).sqrt(), mask, image], 2).transpose(1, 2)
    velocity = unet(
        given.to(dtype),
        0.25 * sigma.log(),
        encoder_hidden_states=inputs["words"].to(dtype).repeat_interleave(state.shape[1], 0),
        return_dict=False,
    )[0]
    estimate = clean_estimate(velocity.float().transpose(1, 2), state, sigma)
    return clip_loss(estimate, inputs["target"], sigma, channel_weights), estimate


def train(
    model: TinyAnimateDiff, average: TinyAnimateDiff, prompts: Prompts, pool: PicturePool, clock: Clock, log: Log,
    batch: int, compiled: bool, save: Callable[[], None],
) -> None:  # fmt: skip
    device = pool.pictures.device
    vae = frozen(model.vae, compiled)
    trainer = Trainer({"unet": model.unet}, RATE, 0.02, compiled)
    ema = Average([model.unet], [average.unet])
    with torch.no_grad():
        probe = model.vae.encode(pool.draw(8, SIZE)).latent_dist.mode()
    amplitudes = torch.tensor(AMPLITUDES, device=device)
    tables = Tables(mask_table(device), named_moves(device), amplitudes, channel_weights(model.vae, probe))
    pairs = max(1, round(PAIRED * batch))
    loss = functools.partial(unet_loss, channel_weights=tables.weights)
    rollout = Rollout(Group.paired(max(1, (batch + pairs) // AGES), batch, pairs))
    running: list[Tensor] = []
    while not clock.over:
        with torch.no_grad():
            drawn = draw_batch(vae, prompts, pool, tables, batch, pairs)
        losses, answer = trainer.gradient(loss, drawn)
        trainer.step(clock)
        # whatever is said, or not said: from the second step on the move is there to be seen
        going = rollout.enter(drawn | {"target": drawn["latents"]}, answer)
        later, mended = trainer.gradient(loss, going)
        trainer.step(clock)
        rollout.go_on(mended)
        ema.update(clock.step)
        errors = [(x - y["target"]).square().mean() for x, y in ((answer, drawn), (mended, going))]
        running.append(torch.stack([losses.mean(), later.mean(), *errors]))
        if clock.step % 200 == 0:
            first, second, error, mended_error = torch.stack(running).mean(0).tolist()
            running.clear()
            log.write(
                stage="unet", step=clock.step, now=clock.now, seconds=clock.elapsed, loss=first, loss_later=second,
                error=error, error_later=mended_error,
            )  # fmt: skip
        if clock.step % SAVE_EVERY == SAVE_EVERY - 1:
            save()
        clock.tick()
    save()
    log.write(stage="unet", steps=clock.step, seconds=clock.elapsed, now=clock.now)


def main() -> None:
    parser = run_parser(__doc__, batch=16, pictures=12_000)
    parser.add_argument("--prompts", type=int, default=512, help="how many for each move")
    parser.add_argument("--compile", action="store_true", help="compile the layers first: a minute, then faster")
    options = parser.parse_args()
    device = prepare_torch(options.seed)
    log = Log(options.state)
    describe_run(log, "unet", options)
    model = TinyAnimateDiff.fresh().to(device)
    for name, part in model.parts().items():
        load_weights(part, options.state, name)
    average = copy.deepcopy(model)
    load_weights(average.unet, options.state, "average_unet")
    started = time.time()
    pool = PicturePool(options.pictures, POOL_SIDE if device == "cuda" else 2 * SIZE, device)
    prompts = Prompts(model, options.state, options.prompts, device)
    log.write(stage="unet", pictures=options.pictures, seconds=time.time() - started)
    clock = Clock(options.minutes, tuple(options.progress), options.steps)

    def save() -> None:
        save_weights(model.unet, options.state, "unet")
        save_weights(average.unet, options.state, "average_unet")

    train(model, average, prompts, pool, clock, log, options.batch, options.compile, save)


if __name__ == "__main__":
    main()
