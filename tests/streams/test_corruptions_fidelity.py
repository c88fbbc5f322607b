"""How close the corruptions are to what the published generators make of the same images."""

import io
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt

ERROR_OF_SOURCE = {
    "gaussian_noise": 53.3, "shot_noise": 48.7, "impulse_noise": 63.8, "defocus_blur": 35.5, "glass_blur": 45.0,
    "motion_blur": 39.2, "zoom_blur": 35.6, "snow": 29.9, "frost": 32.7, "fog": 43.7, "brightness": 19.7,
    "contrast": 75.1, "elastic_transform": 31.4, "pixelate": 44.0, "jpeg_compression": 18.4,
}  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_change_is_that_of_the_published_generator(shared: Path, name: str, severity: int):
    with np.load(shared / "data/corruption_reference.npz") as file:
        clean, index = file["clean"], torch.from_numpy(file["index"])
        reference = file[f"{name}_{severity}"].astype(float)
    batch = torch.from_numpy(clean).movedim(-1, 1)
    found = torch.stack([corrupt(batch, name, severity, index=index, seed=seed) for seed in range(8)])
    levels = (found * 255).movedim(2, -1).double().numpy()
    change = np.abs(levels - clean).mean()
    assert change == pytest.approx(np.abs(reference - clean).mean(), rel=0.30 if name == "frost" else 0.15)
    # A mean over 32 images: the textures of frost and fog differ from draw to draw by far more than a level.
    slack = {"frost": 10, "fog": 6, "snow": 4}.get(name, 1.5)
    assert np.abs(levels.mean((0, 1, 2, 3)) - reference.mean((0, 1, 2))).max() < slack


@cache
def source_and_images(shared: Path) -> tuple[torch.nn.Module, Tensor, Tensor, Tensor]:
    """The source model, and the images, labels and positions its error is tabulated on."""
    from acclimate.models import cifar10_resnet20
    from acclimate.streams.datasets import load_dataset

    data = load_dataset("cifar10", split="test")
    index = torch.from_numpy(np.random.default_rng(0).permutation(10000)[:2000])
    model = cifar10_resnet20(weights=shared / "models/cifar10_resnet20.safetensors").eval()
    return model, data.images[index], data.labels[index], index


# Equal to other libraries pixel by pixel (see the definitions): tested less often.
SETTLED = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SETTLED)) for name in CORRUPTIONS]
)
def test_source_model_errs_as_on_the_published_generator(shared: Path, name: str):
    model, images, labels, index = source_and_images(shared)
    corrupted = corrupt(images, name, 5, index=index)
    with torch.no_grad():
        answers = torch.cat([model(batch).argmax(1) for batch in corrupted.split(250)])
    error = 100 * (answers != labels).float().mean().item()
    assert error == pytest.approx(ERROR_OF_SOURCE[name], abs=8 if name in ("frost", "fog") else 4)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "Please import `map_coordinates`", DeprecationWarning)
        return pytest.importorskip("imagecorruptions")


def scenes() -> np.ndarray:
    """Three uint8 images of 224x224: gradients, stripes, disks and texture, [3, 224, 224, 3]."""
    generator = np.random.default_rng(3)
    row, column = np.mgrid[:224, :224] / 224
    images = np.empty((3, 224, 224, 3))
    for number, image in enumerate(images):
        for channel in range(3):
            waves = generator.uniform(2, 9 + 8 * number, (4, 2)) * generator.choice([-1, 1], (4, 2))
            image[..., channel] = sum(np.sin(2 * np.pi * (a * row + b * column)) for a, b in waves) * 18 + 110
        for _ in range(25):
            centre, radius = generator.uniform(0, 1, 2), generator.uniform(0.02, 0.15)
            image[(row - centre[0]) ** 2 + (column - centre[1]) ** 2 < radius**2] = generator.uniform(0, 255, 3)
        image += generator.normal(0, 4, image.shape)
    return np.uint8(np.clip(images, 0, 255))


def change(images: np.ndarray, name: str, severity: int, draws: int) -> float:
    batch = torch.from_numpy(images).movedim(-1, 1)
    found = [corrupt(batch, name, severity, seed=seed) - batch / 255 for seed in range(draws)]
    return 255 * torch.stack(found).abs().mean().item()


# imagecorruptions 1.1.2: glass blur, fog and gaussian blur do not run on current numpy and scikit-image, and
# its elastic transform is not that of ImageNet-C. Those are derived below and in the tests of definitions.
ABSENT = {"glass_blur", "fog", "gaussian_blur", "elastic_transform"}


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS + EXTRA_CORRUPTIONS if name not in ABSENT])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_change_is_that_of_imagecorruptions(reference: ModuleType, name: str, severity: int):
    images = scenes()
    draws = 8 if name in ("motion_blur", "frost", "spatter") else 2
    np.random.seed(0)  # noqa: NPY002
    expected = np.mean(
        [
            np.abs(reference.corrupt(image, severity=severity, corruption_name=name).astype(float) - image).mean()
            for image in images
            for _ in range(draws)
        ]
    )
    found = change(images, name, severity, draws)
    assert found == pytest.approx(expected, rel=0.30 if name == "frost" else 0.15)


def glass(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    ndimage = pytest.importorskip("scipy.ndimage")
    sigma, reach, rounds = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][severity - 1]
    sigmas = (sigma, sigma, 0)
    blurred = np.floor(ndimage.gaussian_filter(image.astype(float), sigmas, mode="nearest"))
    for _ in range(rounds):
        for row in range(224 - reach, reach, -1):
            offsets = generator.integers(-reach, reach, (225, 2))
            for column in range(224 - reach, reach, -1):
                right, down = offsets[column]
                blurred[row, column] = blurred[row + down, column + right]
    return ndimage.gaussian_filter(blurred, sigmas, mode="nearest")


def fog(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    """Heights fixed point by point, squares before diamonds, on a torus of 256 points."""
    density, decay = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)][severity - 1]
    height, step, amplitude = np.zeros((256, 256)), 256, 100.0
    while step > 1:
        half = step // 2
        starts = np.arange(0, 256, step)
        for down, right in ((half, half), (0, half), (half, 0)):
            row, column = np.meshgrid(starts + down, starts + right, indexing="ij")
            ways = [(a, b) for a in (-half, half) for b in (-half, half)]
            if (down, right) != (half, half):
                ways = [(half, 0), (-half, 0), (0, half), (0, -half)]
            around = sum(height[(row + a) % 256, (column + b) % 256] for a, b in ways)
            height[row, column] = around / 4 + amplitude * generator.uniform(-amplitude, amplitude, row.shape)
        step, amplitude = half, amplitude / decay
    cloud = (height - height.min()) / np.ptp(height)
    brightest = image.max() / 255
    foggy = (image / 255 + density * cloud[:224, :224, None]) * brightest / (brightest + density)
    return np.clip(foggy, 0, 1) * 255


def elastic(image: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    cv2, ndimage = pytest.importorskip("cv2"), pytest.importorskip("scipy.ndimage")
    fractions = [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)]
    amplitude, sigma, jitter = (244 * fraction for fraction in fractions[severity - 1])
    corners = np.float32([[112 + 74, 112 + 74], [112 + 74, 112 - 74], [112 - 74, 112 - 74]])
    moved = corners + np.float32(generator.uniform(-jitter, jitter, (3, 2)))
    matrix = cv2.getAffineTransform(corners, moved)
    warped = cv2.warpAffine(image, matrix, (224, 224), borderMode=cv2.BORDER_REFLECT_101)
    noise = generator.uniform(-1, 1, (2, 224, 224))
    shift = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="reflect", truncate=3) * amplitude
    place = np.mgrid[:224, :224] + shift
    planes = [ndimage.map_coordinates(warped[..., c].astype(float), place, order=1, mode="reflect") for c in range(3)]
    return np.stack(planes, -1)


def soften(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    ndimage = pytest.importorskip("scipy.ndimage")
    sigma = [1, 2, 3, 4, 6][severity - 1]
    return ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="nearest")


@pytest.mark.parametrize(
    ("name", "derived", "draws"),
    [("glass_blur", glass, 1), ("fog", fog, 30), ("elastic_transform", elastic, 10), ("gaussian_blur", soften, 1)],
)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_change_is_that_of_the_published_definition(name: str, derived, draws: int, severity: int):
    images = scenes()
    generator = np.random.default_rng(severity)
    expected = np.mean(
        [np.abs(np.floor(derived(image, severity, generator)) - image).mean() for image in images for _ in range(draws)]
    )
    assert change(images, name, severity, draws) == pytest.approx(expected, rel=0.15)


def test_jpeg_file_and_tensor_agree_on_a_scene():
    pillow = pytest.importorskip("PIL.Image")
    image = scenes()[0]
    file = io.BytesIO()
    pillow.fromarray(image).save(file, "JPEG", quality=25)
    result = corrupt(torch.from_numpy(image).movedim(-1, 0)[None], "jpeg_compression", 1)[0]
    levels: Tensor = (result * 255).movedim(0, -1)
    assert np.abs(np.asarray(pillow.open(file)).astype(float) - levels.numpy()).mean() < 0.1
