"""Device memory of a request, predicted from the models' files alone: their configs and the headers of their weights.

A phase's peak is the weights that are on the device then, and the tensors that are alive at its widest layer. Which
tensors those are follows from the architecture and is counted (`activations`); few numbers are measured.
"""

from vidkit.memory.cache_room import room_beside
from vidkit.memory.free import free_device_memory
from vidkit.memory.prediction import Prediction, predict, words

__all__ = ["Prediction", "free_device_memory", "predict", "room_beside", "words"]
