import numpy as np
import pytest
import torch

from tests.known import to_tensor as plain
from utils.data.letterbox import to_tensor

CPU = torch.device("cpu")


def test_every_value_is_exactly_byte_over_255() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    image[..., 1] = image[::-1, :, 0]
    images = to_tensor([image, image[::-1]], CPU)
    assert torch.equal(images[:1], plain(image[None]))
    assert torch.equal(images[1:], plain(image[None, ::-1]))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_tensor([image], CPU, half=True), plain(image[None]).half())
    assert torch.equal(to_tensor([image[..., ::-1]], CPU, rgb=True), plain(image[None]))


@pytest.mark.parametrize("half", [False, True])
def test_other_devices_give_the_same_shape_and_precision(half: bool) -> None:
    """The code path of a GPU, on the meta device."""
    device = torch.device("meta")
    image = np.zeros((32, 64, 3), np.uint8)
    images = to_tensor([image, image], device, half)
    assert (images.shape, images.dtype) == ((2, 3, 32, 64), torch.float16 if half else torch.float32)
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(levels.half() / 255, (levels / 255).half())
