"""The time limit: when it has passed, and what its error suggests from the pace that was measured."""

from __future__ import annotations

import pytest

from vidkit import time_limit
from vidkit.errors import GenerationError, Remedy
from vidkit.params import GenerationParams
from vidkit.progress import Reporter
from vidkit.time_limit import MARGIN, TimeLimit

PARAMS = GenerationParams(
    image_path="a.png", prompt="waves", width=1024, height=576, num_frames=50, num_inference_steps=25
)


class Clock:
    """The time, as the test has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time_limit.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def remedies(error: GenerationError) -> dict[str, object]:
    return {
        name: value
        for suggestion in error.suggestions
        if isinstance(suggestion, Remedy)
        for name, value in suggestion.changes.items()
    }


def test_nothing_is_said_within_the_limit(clock: Clock) -> None:
    limit = TimeLimit(600, PARAMS)
    clock.now += 599
    limit.check()
    clock.now += 2
    with pytest.raises(GenerationError) as caught:
        limit.check()
    assert caught.value.code == "timeout"
    unlimited = TimeLimit(None, PARAMS)
    clock.now += 10**6
    unlimited.check()


def test_while_denoising(clock: Clock) -> None:
    limit = TimeLimit(600, PARAMS)
    clock.now += 60  # loading and encoding
    limit.at("denoise")
    clock.now += 541
    limit.at("denoise", 0.25)  # 2,164 s for all of it
    error = limit.timeout()
    assert "while denoising, 25% of which was done" in error.message
    assert "takes about 2224 s" in error.message
    share = (600 * MARGIN - 60) / (541 / 0.25)
    assert remedies(error) == {
        "num_inference_steps": int(25 * share),
        "num_frames": int(50 * share),
        "width": 448,
        "height": 256,
    }
    assert 1024 * 576 * share >= 448 * 256
    assert "VIDKIT_LIMIT_TIME" in error.suggestions[-1]


def test_while_decoding(clock: Clock) -> None:
    """Fewer steps leave decoding as long as it is."""
    limit = TimeLimit(600, PARAMS)
    limit.at("denoise")
    clock.now += 500
    limit.at("denoise", 1.0)
    limit.at("decode")
    clock.now += 101
    limit.at("decode", 0.5)
    error = limit.timeout()
    assert "takes about 702 s" in error.message
    assert remedies(error)["num_inference_steps"] == int(25 * (600 * MARGIN - 202) / 500)
    assert remedies(error)["num_frames"] == int(50 * 600 * MARGIN / 702)


def test_a_second_attempt_is_measured_anew(clock: Clock) -> None:
    limit = TimeLimit(600, PARAMS)
    limit.at("denoise")
    clock.now += 100
    limit.at("decode")
    clock.now += 100
    limit.at("load")
    limit.at("denoise")
    clock.now += 401
    limit.at("denoise", 0.5)
    assert limit.needed() == pytest.approx(200 + 802)
    assert remedies(limit.timeout())["num_frames"] == int(50 * (600 * MARGIN - 200) / 802)


@pytest.mark.parametrize("phase", ["load", "encode", "denoise"])
def test_without_a_pace_nothing_is_promised(clock: Clock, phase: time_limit.Phase) -> None:
    limit = TimeLimit(600, PARAMS)
    limit.at(phase)
    clock.now += 601
    error = limit.timeout()
    assert remedies(error) == {}
    assert "At this pace" not in error.message
    assert any("VIDKIT_LIMIT_TIME" in suggestion for suggestion in error.suggestions)


def test_a_request_that_no_change_helps_gets_none(clock: Clock) -> None:
    limit = TimeLimit(600, PARAMS)
    clock.now += 590
    limit.at("denoise")
    clock.now += 11
    limit.at("denoise", 0.01)
    assert remedies(limit.timeout()) == {}


def test_a_reporter_asks_within_the_limit_only(clock: Clock) -> None:
    reporter = Reporter(None, None)
    clock.now += 10**6
    reporter.check()
    with reporter.limited(TimeLimit(10, PARAMS)):
        reporter.step(1, 25)
        clock.now += 11
        with pytest.raises(GenerationError, match="limit of 10 s"):
            reporter.step(2, 25)
        with pytest.raises(GenerationError, match="8% of which was done"):
            reporter.check()
    reporter.check()
