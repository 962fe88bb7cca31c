"""Augmented images move, turn and grow by what was asked for, and by chance alone that their generator draws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hpo.trainer import TrainerError
from trainers.augmentation import Augmentation, mirrored, moved, warped

NOTHING: dict[str, Any] = {"shift": 0, "rotation": 0.0, "scaling": 0.0, "flip": False, "image": (1, 5, 5), "flips": True}
EACH: list[dict[str, Any]] = [
    {"shift": 2},
    {"rotation": 20.0},
    {"scaling": 0.2},
    {"flip": True},
    {"shift": 1, "rotation": 9.0, "flip": True},
]

pytestmark = pytest.mark.usefixtures("one_thread")


def augmentation(**changes: Any) -> Augmentation:
    return Augmentation(**{**NOTHING, **changes})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator())


def still(images: Tensor) -> dict[str, Tensor]:
    n = len(images)
    return {"shifts": torch.zeros(2, n, dtype=torch.int64), "angles": torch.zeros(n), "scales": torch.ones(n)}


SMALL = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]).view(1, 1, 3, 4)


@pytest.mark.parametrize(
    ("down", "right", "expected"),
    [
        (0, 0, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
        (1, 0, [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]),
        (0, 2, [[0, 0, 1, 2], [0, 0, 5, 6], [0, 0, 9, 10]]),
        (-2, -1, [[10, 11, 12, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_known_pixels_move_down_and_right(down: int, right: int, expected: list[list[float]]) -> None:
    shifts = torch.tensor([[down], [right]])
    assert moved(SMALL, shifts, 2).view(3, 4).tolist() == expected
    assert torch.allclose(warped(SMALL, **(still(SMALL) | {"shifts": shifts})).view(3, 4), torch.tensor(expected).float(), atol=1e-5)


@given(st.integers(0, 3), st.integers(0, 100), st.integers(1, 3), st.integers(2, 7), st.integers(2, 7))
def test_both_ways_of_moving_agree(largest: int, seed: int, channels: int, height: int, width: int) -> None:
    images = random(4, channels, height, width)
    shifts = torch.randint(-largest, largest + 1, (2, 4), generator=generator(seed))
    assert torch.allclose(moved(images, shifts, largest), warped(images, **(still(images) | {"shifts": shifts})), atol=1e-5)


def test_a_quarter_turn_is_exact_and_anticlockwise() -> None:
    images = random(3, 2, 6, 6)
    turned = warped(images, **(still(images) | {"angles": torch.tensor([math.pi / 2, -math.pi / 2, math.pi])}))
    for image, found, quarters in zip(images, turned, (1, -1, 2), strict=True):
        assert torch.allclose(found, torch.rot90(image, quarters, (1, 2)), atol=1e-5)


def test_turning_keeps_lengths_where_images_are_not_square() -> None:
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 2, 3:6] = 1  # a bar of three pixels in the middle, across
    turned = warped(image, **(still(image) | {"angles": torch.tensor([math.pi / 2])}))
    expected = torch.zeros(1, 1, 5, 9)
    expected[0, 0, 1:4, 4] = 1
    assert torch.allclose(turned, expected, atol=1e-5)


def test_an_enlarged_block_covers_the_square_of_the_factor() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 6:10, 6:10] = 1
    for factor in (0.5, 1.0, 1.5, 2.0):
        assert warped(image, **(still(image) | {"scales": torch.tensor([factor])})).sum().item() == pytest.approx(16 * factor**2, rel=0.13)


def test_a_moved_image_is_turned_about_its_own_middle() -> None:
    image = random(1, 1, 7, 7)
    shifts, angles = torch.tensor([[1], [2]]), torch.tensor([math.pi / 2])
    expected = moved(torch.rot90(image, 1, (2, 3)), shifts, 2)
    assert torch.allclose(warped(image, shifts, angles, torch.ones(1)), expected, atol=1e-5)


def test_only_the_chosen_are_mirrored() -> None:
    images = random(2, 1, 3, 4)
    found = mirrored(images, torch.tensor([True, False]))
    assert torch.equal(found[0], images[0].flip(-1))
    assert torch.equal(found[1], images[1])


def test_without_anything_nothing_happens() -> None:
    x = random(4, 25)
    draws = generator()
    before = draws.get_state()
    assert not augmentation().active
    assert augmentation()(x, draws) is x
    assert not augmentation(image=None).active
    assert torch.equal(draws.get_state(), before)


@pytest.mark.parametrize("changes", EACH)
def test_a_seed_decides_and_the_images_stay(changes: dict[str, Any]) -> None:
    x = random(64, 25)
    before, change = x.clone(), augmentation(**changes)
    assert change.active
    found = change(x, generator(1))
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert torch.equal(x, before)
    assert not torch.equal(found, x)
    assert torch.equal(found, change(x, generator(1)))
    assert not torch.equal(found, change(x, generator(2)))


@pytest.mark.parametrize("changes", EACH)
def test_brightness_is_roughly_kept(changes: dict[str, Any]) -> None:
    image = torch.zeros(28, 28)
    image[6:22, 6:22] = random(16, 16)
    x = image.view(1, -1).expand(256, -1)
    found = augmentation(**changes, image=(1, 28, 28))(x, generator())
    assert found.mean().item() == pytest.approx(x.mean().item(), rel=0.03)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-5


def test_every_shift_within_the_limit_occurs_and_no_other() -> None:
    point = torch.zeros(1, 7, 7)
    point[0, 3, 3] = 1
    found = augmentation(shift=2, image=(1, 7, 7))(point.view(1, -1).expand(2000, -1), generator()).view(-1, 7, 7)
    places = found.mean(0)
    assert torch.equal(found.sum((1, 2)), torch.ones(2000))
    assert places[1:6, 1:6].sum().item() == pytest.approx(1)
    assert torch.allclose(places[1:6, 1:6], torch.tensor(1 / 25), atol=0.02)


def test_half_of_the_images_are_mirrored() -> None:
    x = torch.tensor([[1.0, 0.0]]).expand(2000, -1)
    assert augmentation(flip=True, image=(1, 1, 2))(x, generator())[:, 1].mean().item() == pytest.approx(0.5, abs=0.05)


def test_angles_and_factors_stay_within_their_limits() -> None:
    bar = torch.zeros(1, 15, 15)
    bar[0, 7, 7:] = 1  # from the middle to the right edge
    found = augmentation(rotation=90.0, image=(1, 15, 15))(bar.view(1, -1).expand(500, -1), generator()).view(-1, 15, 15)
    assert found[:, :, :6].sum() == 0  # never to the left
    assert found[:, 0].sum() > 0
    assert found[:, 14].sum() > 0
    block = torch.zeros(1, 20, 20)
    block[0, 5:15, 5:15] = 1
    areas = augmentation(scaling=0.5, image=(1, 20, 20))(block.view(1, -1).expand(500, -1), generator()).sum(1).sqrt() / 10
    assert 0.45 < areas.min() < 0.6
    assert 1.4 < areas.max() < 1.55


@pytest.mark.parametrize("changes", EACH)
def test_what_is_no_image_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TrainerError, match="are for images"):
        augmentation(**changes, image=None)


def test_a_flip_that_may_change_the_class_is_refused() -> None:
    with pytest.raises(TrainerError, match="flip: true may change the class"):
        augmentation(flip=True, flips=False)
    assert not augmentation(flips=False).active
