"""One call of a network as compiled code in a file, which knows no weights: they are arguments of it too.

So a package would serve every model of a kind, with any LoRA, wherever its weights lie now; a small one is loaded on a
CPU in 0.03 s. It is made of a network without weights, so making it takes no model's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: from weights by name, arguments and options to a network's result
Compiled = Callable[[Mapping[str, Any], list[Any], dict[str, Any]], Any]


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


def compile_to(file: Path, network: Any, arguments: list[Any], options: dict[str, Any], device: str) -> None:
    """Compile one call for a device of this machine. Minutes for a full-size UNet.

    network, arguments, options: their tensors are on the meta device, where they have sizes and no memory.

    Raises:
        whatever torch raises of what it cannot export or compile.
    """
    import torch
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
    from torch.utils._pytree import tree_map_only

    # as torch.export has it, which would take real tensors as examples, and a GPU's memory for them
    fake = FakeTensorMode(
        allow_non_fake_inputs=True, export=True, shape_env=ShapeEnv(tracked_fakes=[], trace_asserts=True)
    )

    def on_device(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    with fake:
        examples = tree_map_only(torch.Tensor, on_device, (weights_of(network), arguments, options))
    with torch.no_grad(), tracing(TracingContext(fake)):
        exported = torch.export.export(stateless(network), examples, strict=False)
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
