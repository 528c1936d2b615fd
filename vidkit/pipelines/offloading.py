"""Networks that wait in the host's memory, and come to the device when they are called.

A call of one part of a pipeline sends the part before it back. Nothing is copied back: weights do not change, so their
tensors point again to what never left the host. Tensors are moved, not modules, so that networks which share weights
(`motion_unet`) keep sharing them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from vidkit.models.loading.tensors import tensors_of
from vidkit.pipelines.layers import Layers, layers_of

if TYPE_CHECKING:
    import torch

#: networks that compute in turns at each step, and are on the device together
DENOISER: Final = ("unet", "controlnet")


class Offloading:
    """A pipeline whose parts are on the device only while they compute: UNet and ControlNet, each other network.

    All has to be in the host's memory when it begins, and is there again after `rest`.
    by_layers: of UNet and ControlNet, their layers come one by one (`Layers`).
    """

    def __init__(self, pipe: Any, device: torch.device, *, by_layers: bool) -> None:
        found = networks(pipe)
        denoiser = [found[name] for name in DENOISER if name in found]
        layers = [layer for network in denoiser for layer in layers_of(network)] if by_layers else []
        self._parts = [Part(denoiser, device, layers)]
        self._parts += [Part([network], device) for name, network in found.items() if name not in DENOISER]
        self._current: Part | None = None
        self._handles = [handle for part in self._parts for handle in part.watch(self.begin)]

    def begin(self, part: Part) -> None:
        """A part is about to compute."""
        if part is not self._current:
            self.rest()
            part.fetch()
            self._current = part

    def rest(self) -> None:
        """All parts wait in the host's memory, wherever the work was stopped."""
        import torch

        self._current = None
        for part in self._parts:
            part.put_back()
        torch.cuda.empty_cache()  # the next part's tensors have other sizes; does nothing without CUDA

    def remove(self) -> None:
        """As `rest`, and calls are no longer watched."""
        self.rest()
        for handle in self._handles:
            handle.remove()
        for part in self._parts:
            part.forget()


class Part:
    """Networks that compute in turns. layers: those of their layers that come one by one."""

    def __init__(self, modules: Sequence[Any], device: torch.device, layers: Sequence[Any] = ()) -> None:
        self._modules, self._device = modules, device
        self._layers = Layers(layers, device)
        #: tensors that are on the device, with what they are in the host's memory
        self._fetched: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watch(self, begin: Callable[[Part], None]) -> Iterator[Any]:
        """Have `begin` called, with this part, before its networks compute; gives the handles of its hooks."""
        for module in self._modules:
            module._hf_hook = CallHook(self._device, lambda: begin(self))
            yield module.register_forward_pre_hook(lambda module, arguments: begin(self))
        yield from self._layers.watch()

    def forget(self) -> None:
        for module in self._modules:
            del module._hf_hook

    def fetch(self) -> None:
        by_themselves = {id(tensor) for layer in self._layers.all for tensor in tensors_of(layer)}
        for tensor in (tensor for module in self._modules for tensor in tensors_of(module)):
            if id(tensor) not in by_themselves:
                host = tensor.data
                tensor.data = host.to(self._device, copy=True)
                self._fetched.append((tensor, host))
        self._layers.begin()

    def put_back(self) -> None:
        self._layers.end()
        for tensor, host in self._fetched:
            # in another type where diffusers has cast the network meanwhile, as it does an autoencoder
            tensor.data = host.to(tensor.dtype)
        self._fetched.clear()


class CallHook:
    """What diffusers asks a network for as its `_hf_hook`: where a pipeline computes, and to be told of calls of an
    autoencoder, which are none of `forward`."""

    def __init__(self, device: torch.device, begin: Callable[[], None]) -> None:
        self.execution_device, self._begin = device, begin

    def pre_forward(self, module: Any, *arguments: Any, **options: Any) -> None:
        self._begin()


def networks(pipe: Any) -> dict[str, Any]:
    """Of a pipeline, by name. A motion adapter is none: its layers are the UNet's."""
    import torch

    return {
        name: component
        for name, component in pipe.components.items()
        if isinstance(component, torch.nn.Module) and name != "motion_adapter"
    }
