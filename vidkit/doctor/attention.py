"""Which attention computes, whether xformers loads, and whether diffusers' pipelines can be imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from vidkit.doctor.probe import Probed
from vidkit.doctor.torch_build import PIP
from vidkit.finding import Finding, note, ok, problem

ATTENTION: Final = "torch's own scaled dot-product attention"
UNINSTALL: Final = PIP.removesuffix("install") + "uninstall"
KERNELS: Final = {"flash": "flash", "memoryEfficient": "memory-efficient", "cudnn": "cuDNN"}


def findings(probed: Probed) -> Iterator[Finding]:
    """Of what was tried: a torch that breaks breaks off all that follows."""
    for name, judged in (("attention", attention), ("xformers", xformers), ("pipelines", pipelines)):
        if probed.was_tried(name):
            yield judged(probed)


def attention(probed: Probed) -> Finding:
    told = probed.stage("attention")
    if (error := probed.error("attention")) is not None:
        return problem("attention", f"{ATTENTION} cannot be looked at: {error}.", f"{PIP} --force-reinstall torch")
    if not probed.stage("cuda").get("available"):
        return ok("attention", f"{ATTENTION}, on the CPU.", used="sdpa")
    kernels = [words for name, words in KERNELS.items() if told[name]]
    data = {"used": "sdpa", "kernels": kernels, "quickest": told["quickest"]}
    return ok("attention", f"{ATTENTION} ({', '.join(kernels)} kernels enabled){measured(told['quickest'])}.", **data)


def measured(quickest: Mapping[str, str]) -> str:
    """At speed fast, in words. quickest: kernels by shape."""
    if not quickest:
        return "; at speed fast the quickest for each shape, which is measured when it is first met"
    counts = Counter(quickest.values()).most_common()
    return "; at speed fast the quickest for each shape, so far " + ", ".join(f"{name} for {n}" for name, n in counts)


def xformers(probed: Probed) -> Finding:
    """An extra that nothing needs: torch's own kernels were as fast for SVD."""
    told, topic = probed.stage("xformers"), "xformers"
    if (error := probed.error(topic)) is not None:
        return note(topic, f"It cannot be imported: {error}.", f"Remove it: {UNINSTALL} xformers")
    if told["version"] is None:
        return ok(topic, f"Not installed, and not needed: clips are computed with {ATTENTION}.", version=None)
    data: dict[str, Any] = {"version": told["version"], "loads": not told["warnings"]}
    if told["warnings"]:
        return note(
            topic,
            f"xformers {told['version']} loads no kernels here: {in_short(told['warnings'][0])}. It does no harm: "
            f"clips are computed with {ATTENTION}, which is as fast.",
            f"Remove it: {UNINSTALL} xformers",
            "Or install the one for this torch: each is built for one version of it",
            **data,
        )
    what = f"xformers {told['version']} loads: speed fast takes it for shapes that it is the quickest for"
    return ok(topic, f"{what}; else clips are computed with {ATTENTION}.", **data)


def in_short(warning: str) -> str:
    """What xformers says of itself, without its own advice, which is to install it again."""
    return warning.removeprefix("WARNING[XFORMERS]: ").split(" Please reinstall")[0].rstrip(".")[:300]


def pipelines(probed: Probed) -> Finding:
    topic = "pipelines"
    error = probed.error(topic)
    if error is None:
        return ok(topic, "diffusers' and transformers' classes can be imported.")
    remedies = [f"{PIP} --upgrade --force-reinstall diffusers transformers"]
    if "xformers" in error:
        remedies.insert(0, f"Remove xformers: {UNINSTALL} xformers")
    if "torchvision" in error:
        remedies.insert(0, f"Install the torchvision of this torch, or remove it: {UNINSTALL} torchvision")
    return problem(topic, f"diffusers' pipelines cannot be imported: {error}.", *remedies, stops=True)
