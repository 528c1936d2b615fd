"""One call of a network as compiled code in a file, which knows no weights: they are arguments of it too.

So a package would serve every model of a kind, with any LoRA, wherever its weights lie now; a small one is loaded on a
CPU in 0.03 s. It is made of a network without weights, so making it takes no model's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: from weights by name, arguments and options to a network's result
Compiled = Callable[[Mapping[str, Any], list[Any], dict[str, Any]], Any]


@dataclass(frozen=True)
class Call:
    """The arguments of a network, described: what is equal runs the same compiled code."""

    arguments: Sequence[Any]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, arguments: Sequence[Any], options: Mapping[str, Any]) -> Call:
        """Raises TypeError: an argument is neither tensors nor JSON."""
        return cls([described(value) for value in arguments], {name: described(options[name]) for name in options})

    def made(self, make: Callable[..., torch.Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments like those. make: a tensor of a size, a stride and a dtype."""
        arguments = [undescribed(value, make) for value in self.arguments]
        return arguments, {name: undescribed(value, make) for name, value in self.options.items()}


def described(value: Any) -> Any:
    import torch

    match value:
        case torch.Tensor():
            dtype = str(value.dtype).removeprefix("torch.")
            return {"tensor": [list(value.shape), list(value.stride()), dtype]}
        case None | bool() | int() | float() | str():
            return value
        case tuple() | list():
            return [described(one) for one in value]
        case Mapping():
            return {"mapping": {str(name): described(one) for name, one in value.items()}}
    raise TypeError(f"a {type(value).__name__} is no tensor and no JSON")


def undescribed(value: Any, make: Callable[..., torch.Tensor]) -> Any:
    import torch

    match value:
        case {"tensor": [size, stride, dtype]}:
            return make(size, stride, getattr(torch, dtype))
        case {"mapping": inner}:
            return {name: undescribed(one, make) for name, one in inner.items()}
        case list():
            return [undescribed(one, make) for one in value]
    return value


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


def compile_to(file: Path, network: Any, call: Call, device: torch.device) -> None:
    """Compile the call of a network on the meta device for a device of this machine. Minutes for a full-size UNet.

    Raises:
        whatever torch raises of what it cannot export or compile.
    """
    import torch
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # as torch.export has it, which would take real tensors as examples, and a GPU's memory for them
    fake = FakeTensorMode(
        allow_non_fake_inputs=True, export=True, shape_env=ShapeEnv(tracked_fakes=[], trace_asserts=True)
    )
    with fake:

        def example(size: Any, stride: Any, dtype: Any) -> torch.Tensor:
            return torch.empty_strided(size, stride, dtype=dtype, device=device)

        weights = {name: example(one.shape, one.stride(), one.dtype) for name, one in weights_of(network).items()}
        arguments, options = call.made(example)
    with torch.no_grad(), tracing(TracingContext(fake)):
        exported = torch.export.export(stateless(network), (weights, arguments, options), strict=False)
    torch._inductor.aoti_compile_and_package(exported, package_path=str(file))


def stateless(network: Any) -> torch.nn.Module:
    """A module without weights that calls a network with those that it is given."""
    import torch

    class Stateless(torch.nn.Module):
        def forward(self, weights: dict[str, Any], arguments: list[Any], options: dict[str, Any]) -> Any:
            return torch.func.functional_call(network, weights, tuple(arguments), options)

    return Stateless()


def load(file: Path) -> Compiled:
    """Raises RuntimeError, OSError: it is damaged, or made by another torch."""
    import torch

    loaded: Compiled = torch._inductor.aoti_load_package(str(file))
    return loaded
