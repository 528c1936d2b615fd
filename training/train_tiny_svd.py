"""Train `tiny-svd` from nothing: `python -m training.train_tiny_svd vae|unet --minutes M --state DIR ...`.

Resumable: the state folder holds the raw and the averaged weights (half precision, the optimiser is rebuilt) and the
log. `--progress A B` says which part of the whole schedule this run is (0 the start, 1 the end); the noise code's
loudness, the learning rate and the clip lengths follow it.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .camera import affine_path, boost_code, move_from_code, read_code, warp_clip
from .pictures import PicturePool
from .tiny_svd import FRAMES, SIGMA_MAX, SIGMA_MIN, SIZE, TinySvd, clip_pixels

EMA_DECAY = 0.999
LONG_FRAMES = 25  # SVD-XT's length, and the specification's default: a quarter of the later steps
VAE_RATE, UNET_RATE = 1e-3, 6e-4


class Log:
    """One JSON line an entry, in the state folder and on the terminal."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def write(self, **entry: object) -> None:
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


def save_weights(module: torch.nn.Module, path: Path) -> None:
    save_file({k: v.to(torch.float16).contiguous() for k, v in module.state_dict().items()}, path)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    if path.exists():
        module.load_state_dict({k: v.float() for k, v in load_file(path).items()})


class Clock:
    """The share of this run that is over, by time or by steps, mapped onto the schedule."""

    def __init__(self, minutes: float, progress: tuple[float, float], steps: int | None = None) -> None:
        self.start, self.seconds, self.progress, self.steps, self.step = time.time(), minutes * 60, progress, steps, 0

    def tick(self) -> None:
        self.step += 1

    @property
    def elapsed(self) -> float:
        return time.time() - self.start

    @property
    def share(self) -> float:
        return self.step / self.steps if self.steps else min(self.elapsed / self.seconds, 1.0)

    @property
    def now(self) -> float:
        return self.progress[0] + (self.progress[1] - self.progress[0]) * self.share

    @property
    def over(self) -> bool:
        return self.share >= 1


def learning_rate(peak: float, now: float, step: int) -> float:
    """Warm-up, then constant, then linear to zero over the last 40 % of the schedule."""
    return peak * min(1, (step + 1) / 100) * min(1, max(0.01, (1 - now) / 0.4))


def random_clips(pool: PicturePool, batch: int, frames: int) -> Tensor:
    device = pool.pictures.device
    move = move_from_code(torch.randn(batch, 4, device=device))
    path = affine_path(move, 255 * torch.rand(batch, device=device), frames)
    return warp_clip(pool.draw(batch, 2 * SIZE), path, SIZE)


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def vae_loss(vae: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """L1, L1 of the edges, squared error and a weak KL of clips (batch, frames, 3, size, size), (1,)."""
    clips = inputs["clips"]
    frames = clips.flatten(0, 1)
    posterior = vae.encode(frames.to(next(vae.parameters()).dtype)).latent_dist
    latents = posterior.sample()
    # what the UNet hands the decoder is never quite clean
    latents = latents + 0.05 * torch.rand_like(latents[:, :1, :1, :1]) * torch.randn_like(latents)
    decoded = vae.decode(latents, num_frames=clips.shape[1]).sample.float()
    error = (decoded - frames).square().mean()
    edge = sum((a - b).abs().mean() for a, b in zip(edges(decoded), edges(frames), strict=True))
    kl = posterior.kl().float().mean() / latents[0].numel()
    return ((decoded - frames).abs().mean() + edge + 2 * error + 1e-5 * kl)[None]


@torch.no_grad()
def fold_scale(vae: torch.nn.Module, clips: Tensor) -> Tensor:
    """Give every latent channel unit deviation by scaling the weights on both sides; exact. Returns what it was."""
    channels = vae.config.latent_channels
    deviation = vae.encode(clips.flatten(0, 1)).latent_dist.mode().float().std((0, 2, 3))
    quant, conv_in = vae.quant_conv, vae.decoder.conv_in
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] /= deviation
    quant.bias[channels:] -= 2 * deviation.log()
    conv_in.weight *= deviation[None, :, None, None]
    return deviation


class Trainer:
    """Full-precision weights and AdamW over a half-precision working copy that computes (on CUDA; one copy on the CPU).

    Loss and gradients for each batch shape are recorded once as a CUDA graph: launching the kernels of so small a
    model one by one takes longer than running them.
    """

    def __init__(self, masters: list[torch.nn.Module], peak_rate: float, weight_decay: float) -> None:
        self.masters = [module.train() for module in masters]
        self.parameters = [p for module in masters for p in module.parameters() if p.requires_grad]
        self.cuda = self.parameters[0].is_cuda
        dtype = torch.bfloat16 if self.cuda else torch.float32
        self.working = [copy.deepcopy(module).to(dtype) for module in masters]
        self.working_parameters = [p for module in self.working for p in module.parameters() if p.requires_grad]
        for parameter in self.parameters + self.working_parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradients = [p.grad for p in self.working_parameters]
        self.peak_rate = peak_rate
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=peak_rate, betas=(0.9, 0.98), weight_decay=weight_decay, fused=self.cuda
        )
        self.recorded: dict[object, tuple[torch.cuda.CUDAGraph, dict[str, Tensor], Tensor]] = {}

    def gradient(self, loss: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Tensor:
        """Run loss(*modules, inputs) -> (batch,) and fill the gradients of its mean."""

        def run(given: dict[str, Tensor]) -> Tensor:
            torch._foreach_zero_(self.gradients)
            losses = loss(*self.working, given)
            losses.mean().backward()
            return losses.detach()

        if not self.cuda:
            return run(inputs)
        key = tuple(value.shape for value in inputs.values())
        if key not in self.recorded:
            held = {name: value.clone() for name, value in inputs.items()}
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    run(held)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                losses = run(held)
            self.recorded[key] = graph, held, losses
        graph, held, losses = self.recorded[key]
        for name, value in inputs.items():
            held[name].copy_(value)
        graph.replay()
        return losses.clone()

    @torch.no_grad()
    def step(self, clock: Clock) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.peak_rate, clock.now, clock.step)
        torch._foreach_copy_([p.grad for p in self.parameters], self.gradients)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        torch._foreach_copy_(self.working_parameters, self.parameters)


def train_vae(model: TinySvd, pool: PicturePool, clock: Clock, log: Log, batch: int) -> None:
    """Three quarters of the schedule on quarters of the picture (four times the steps), the rest on whole ones."""
    fresh = clock.progress[0] == 0
    if fresh:
        with torch.no_grad():
            model.vae.quant_conv.bias[4:] = -6.0  # start with quiet latents: deviation exp(-3)
    else:  # the decoder alone: the UNet knows the latents by now
        model.vae.encoder.requires_grad_(False)
        model.vae.quant_conv.requires_grad_(False)
    trainer = Trainer([model.vae], VAE_RATE, weight_decay=1e-4)
    while not clock.over:
        frames = (1, 2, 4, 7)[clock.step % 4]
        side, size = (SIZE // 2, batch) if clock.now < 0.75 else (SIZE, batch // 2)
        clips = random_clips(pool, max(1, size // frames), frames)
        top, left = torch.randint(SIZE - side + 1, (2,)).tolist()
        clips = clips[..., top : top + side, left : left + side].contiguous()
        losses = trainer.gradient(vae_loss, {"clips": clips})
        trainer.step(clock)
        if clock.step % 500 == 0:
            log.write(stage="vae", step=clock.step, seconds=clock.elapsed, loss=losses.mean().item())
        clock.tick()
    deviation = fold_scale(model.vae, random_clips(pool, 64, 1)).tolist() if fresh else None
    log.write(stage="vae", folded=deviation, steps=clock.step, seconds=clock.elapsed)


def draw_sigma(batch: int, device: torch.device) -> Tensor:
    """Noise levels: EDM's log-normal (mean 0.5, deviation 1.5), a third of them where the motion is decided."""
    low, high = torch.tensor([4.0, SIGMA_MAX]).log()
    motion = low + (high - low) * torch.rand(batch, device=device)
    anywhere = 0.5 + 1.5 * torch.randn(batch, device=device)
    chosen = torch.where(torch.rand(batch, device=device) < 0.35, motion, anywhere)
    return chosen.exp().clamp(SIGMA_MIN, SIGMA_MAX)


def draw_bucket(batch: int, device: torch.device) -> Tensor:
    bucket = torch.randint(0, 256, (batch,), device=device).float()
    return torch.where(torch.rand(batch, device=device) < 0.06, 0.0, bucket)


def denoising_pair(model: TinySvd, pool: PicturePool, batch: int, frames: int, boost: float) -> dict[str, Tensor]:
    """A training batch: noise, the clip that its code stands for, and the conditions the pipeline would give."""
    device = pool.pictures.device
    noise = boost_code(torch.randn(batch, frames, 4, SIZE // 4, SIZE // 4, device=device), boost)
    bucket, sigma = draw_bucket(batch, device), draw_sigma(batch, device)
    path = affine_path(move_from_code(read_code(noise)), bucket, frames)
    clips = warp_clip(pool.draw(batch, 2 * SIZE), path, SIZE)
    latents = model.vae.encode(clips.flatten(0, 1)).latent_dist.mode().unflatten(0, (batch, frames)).float()
    augmentation = torch.where(torch.rand(batch, device=device) < 0.7, 0.02, 0.15 * torch.rand(batch, device=device))
    first = clips[:, 0]
    noisy_first = first + augmentation[:, None, None, None] * torch.randn_like(first)
    image_latents = model.vae.encode(noisy_first).latent_dist.mode().float()
    kept = (torch.rand(batch, device=device) >= 0.1).float()
    fps = torch.randint(4, 31, (batch,), device=device).float()
    return {
        "latents": latents,
        "noise": noise,
        "sigma": sigma,
        "image_latents": image_latents * kept[:, None, None, None],
        "pixels": clip_pixels(first),
        "kept": kept,
        "time_ids": torch.stack([fps - 1, bucket, augmentation], 1),
    }


def unet_loss(unet: torch.nn.Module, encoder: torch.nn.Module, pair: dict[str, Tensor]) -> Tensor:
    """EDM's loss with SVD's v-prediction preconditioning: equal weight on v, (batch,)."""
    dtype = next(unet.parameters()).dtype
    sigma = pair["sigma"][:, None, None, None, None]
    noisy = pair["latents"] + sigma * pair["noise"]
    frames = noisy.shape[1]
    scaled = noisy / (sigma**2 + 1).sqrt()
    condition = pair["image_latents"][:, None].expand(-1, frames, -1, -1, -1)
    embedding = encoder(pair["pixels"].to(dtype)).image_embeds[:, None] * pair["kept"][:, None, None]
    velocity = unet(
        torch.cat([scaled, condition], 2).to(dtype),
        0.25 * pair["sigma"].log(),
        encoder_hidden_states=embedding.to(dtype),
        added_time_ids=pair["time_ids"],
        return_dict=False,
    )[0].float()
    target = (noisy / (sigma**2 + 1) - pair["latents"]) * (sigma**2 + 1).sqrt() / sigma
    return (velocity - target).square().mean((1, 2, 3, 4))


def boost_at(now: float) -> float:
    """The noise code's loudness: 6 at first, 1 (plain noise) from 30 % of the schedule on."""
    return 6.0 ** max(0.0, 1 - now / 0.3)


class Average:
    """Exponential moving average of modules' weights."""

    def __init__(self, modules: list[torch.nn.Module], copies: list[torch.nn.Module]) -> None:
        self.live = [p for m in modules for p in m.parameters()]
        self.kept = [p for m in copies for p in m.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.kept, [p.to(k.dtype) for p, k in zip(self.live, self.kept, strict=True)], 1 - decay)


def train_unet(model: TinySvd, average: TinySvd, pool: PicturePool, clock: Clock, log: Log, batch: int) -> None:
    device = pool.pictures.device
    trainer = Trainer([model.unet, model.image_encoder], UNET_RATE, weight_decay=1e-3)
    ema = Average(trainer.masters, [average.unet, average.image_encoder])
    running: list[Tensor] = []
    while not clock.over:
        long = clock.now > 0.4 and clock.step % 4 == 3
        frames, size = (LONG_FRAMES, max(1, batch * FRAMES // LONG_FRAMES)) if long else (FRAMES, batch)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=pool.pictures.is_cuda):
            pair = denoising_pair(model, pool, size, frames, boost_at(clock.now))
        losses = trainer.gradient(unet_loss, pair)
        trainer.step(clock)
        ema.update(clock.step)
        high = pair["sigma"] > 4
        running.append(torch.stack([losses.mean(), (losses * high).sum() / high.sum().clamp_min(1)]))
        if clock.step % 200 == 0:
            mean, decided = torch.stack(running).mean(0).tolist()
            running.clear()
            log.write(
                stage="unet", step=clock.step, now=clock.now, seconds=clock.elapsed, loss=mean, loss_high=decided,
                boost=boost_at(clock.now),
            )  # fmt: skip
        clock.tick()
    log.write(stage="unet", steps=clock.step, seconds=clock.elapsed, now=clock.now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["vae", "unet"])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--export", type=Path, help="write the averaged model as a diffusers folder here")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--progress", type=float, nargs=2, default=(0.0, 1.0))
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    options.state.mkdir(parents=True, exist_ok=True)
    log = Log(options.state)
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    log.write(stage=options.stage, card=card, torch=torch.__version__, batch=options.batch, seed=options.seed)
    model = TinySvd.fresh().to(device)
    for name, part in model.parts().items():
        load_weights(part, options.state / f"{name}.safetensors")
    started = time.time()
    pool = PicturePool(options.pictures, 4 * SIZE if device == "cuda" else 2 * SIZE, device)
    log.write(stage=options.stage, pictures=options.pictures, seconds=time.time() - started)
    clock = Clock(options.minutes, tuple(options.progress), options.steps)
    average = copy.deepcopy(model)
    for name, part in average.parts().items():
        load_weights(part, options.state / f"{name}.average.safetensors")
    if options.stage == "vae":
        train_vae(model, pool, clock, log, batch=options.batch)
        average.vae = model.vae
    else:
        model.vae.eval()
        train_unet(model, average, pool, clock, log, options.batch)
    for name in ("vae",) if options.stage == "vae" else ("unet", "image_encoder"):
        save_weights(model.parts()[name], options.state / f"{name}.safetensors")
        if options.stage == "unet":
            save_weights(average.parts()[name], options.state / f"{name}.average.safetensors")
    if options.export:
        average.to("cpu").save(options.export)


if __name__ == "__main__":
    main()
