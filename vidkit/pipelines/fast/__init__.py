"""Speed "fast": what diffusers computes, up to rounding, with less work and fewer copies.

diffusers' pipelines, networks and blocks stay as they are; layers get other forwards (`installing`).

- `blocks`: transformer blocks. Attention over one token (SVD's picture) is a constant, and added as one; keys and
  values of a text are computed once for a clip, not for each frame and step; sums are written where a term was.
- `kernels`: on a GPU, attention by the kernel that is the quickest there.
- `layers`: layers around them. Channels lie together in memory (channels last), so that pixels are tokens without a
  copy, attention over frames needs none, and a convolution over time is one over a plane.
- `operations`: what both are made of; on a GPU by Triton's kernels, each of which reads and writes its tensors once:
  norms and sums (`fused`, `triton_kernels`), and what is done with a product of matrices or a convolution
  (`fused_products`, `triton_products`). Where Triton does not work, only the blocks are fast there.
- `rehearsal`: those kernels are compiled while models load.
- `waiting`: what pipelines do on the host while the device waits, and the other way round.

Lean execution (`pipelines.lean`) has the layers where a plan takes it: then only the blocks in them are fast.
"""

from vidkit.pipelines.fast.installing import install, notes, remove
from vidkit.pipelines.fast.rehearsal import rehearsed

__all__ = ["install", "notes", "rehearsed", "remove"]
