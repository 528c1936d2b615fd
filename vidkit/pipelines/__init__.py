"""Model families behind one small protocol. A new one is one file and one line here."""

from vidkit.params import PipelineName
from vidkit.pipelines.animatediff import AnimateDiff
from vidkit.pipelines.family import Family
from vidkit.pipelines.svd import StableVideoDiffusion

FAMILIES: dict[PipelineName, Family] = {"svd": StableVideoDiffusion(), "animatediff": AnimateDiff()}
