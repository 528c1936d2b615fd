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
MAX_GUIDANCE = 9.0


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


def draw_batch(
    vae: torch.nn.Module, prompts: Prompts, pool: PicturePool, tables: Tables, batch: int, pairs: int
) -> dict[str, Tensor]:
    """`batch` clips, of which the first `pairs` come again at the end with a prompt that asks for no move.

    `latents` is the asked clip, `default` the slow zoom in, for the paired clips.
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
    latents, default = encoded[:batch], encoded[batch:]
    shown = ~chance(WITHOUT_PICTURE, batch, device)
    words = torch.cat([moves, torch.full((pairs,), NO_MOVE, device=device)])
    return {
        "latents": again(latents, pairs),
        "default": default,
        "noise": again(torch.randn_like(latents), pairs),
        "shown": again(shown, pairs),
        "mask": again(tables.masks[scale] * shown[:, None], pairs),
        "image_latents": again(latents[:, 0] * shown[:, None, None, None], pairs),
        "words": prompts.draw(words),
    }


def again(values: Tensor, pairs: int) -> Tensor:
    """The batch with its first `pairs` entries once more at the end."""
    return torch.cat([values, values[:pairs]])


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(per_clip(condition), a, b)


def first_state(batch: dict[str, Tensor], pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where sampling starts (noise alone; without the picture: the picture at rest under noise), or any later level.

    Also the clips to aim at: without a move in the prompt the slow zoom in, as long as no move is to be seen.
    """
    latents, shown = batch["latents"], batch["shown"]
    count, device = len(latents) - pairs, latents.device
    start = again(chance(0.7, count, device), pairs)
    highest = torch.full((count,), SIGMA_MAX, device=device)
    sigma = torch.where(
        start[:count] & shown[:count], log_uniform(0.85 * SIGMA_MAX, highest), log_uniform(1.0, highest)
    )
    sigma = again(sigma, pairs)
    rest = where(shown, torch.zeros_like(latents), latents[:, :1].expand_as(latents))
    content = where(start, rest, latents)
    undecided = start[count:]
    target = torch.cat([latents[:count], where(undecided, batch["default"], latents[count:])])
    return content + per_clip(sigma) * batch["noise"], sigma, target


def second_state(
    batch: dict[str, Tensor], answer: Tensor, sigma: Tensor, target: Tensor, pairs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A later step of sampling: the model's own answer, for pairs mostly as guidance mixes it, or the right clip."""
    latents = batch["latents"]
    count, device = len(latents) - pairs, latents.device
    lower = again(log_uniform(0.05, 0.75 * sigma[:count]), pairs)
    own = again(chance(0.75, count, device), pairs)
    content = where(own, answer, latents)
    with_move, without = answer[:pairs], answer[count:]
    guidance = 1 + (MAX_GUIDANCE - 1) * torch.rand(pairs, device=device)
    mixed = without + per_clip(guidance) * (with_move - without)
    guided = chance(0.7, pairs, device)
    content = torch.cat(
        [where(guided, mixed, content[:pairs]), content[pairs:count], where(guided, mixed, content[count:])]
    )
    follows = guided | ~own[count:]
    aim = torch.cat([latents[:count], where(follows, latents[count:], target[count:])])
    return content + per_clip(lower) * batch["noise"], lower, aim


def unet_loss(unet: torch.nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
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
    return clip_loss(estimate, inputs["target"], sigma, inputs["channel_weights"]), estimate


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
    running: list[Tensor] = []
    while not clock.over:
        with torch.no_grad():
            drawn = draw_batch(vae, prompts, pool, tables, batch, pairs)
        given = {k: drawn[k] for k in ("mask", "image_latents", "words")} | {"channel_weights": tables.weights}
        state, sigma, target = first_state(drawn, pairs)
        losses, answer = trainer.gradient(unet_loss, given | {"state": state, "sigma": sigma, "target": target})
        trainer.step(clock)
        state, lower, aim = second_state(drawn, answer, sigma, target, pairs)
        later, mended = trainer.gradient(unet_loss, given | {"state": state, "sigma": lower, "target": aim})
        trainer.step(clock)
        ema.update(clock.step)
        errors = [(x - y)[:batch].square().mean() for x, y in ((answer, target), (mended, aim))]
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
