"""Cameras of the phantom: the plain one takes the old pictures, others change pictures as they say and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermiq.datamodules.phantom import Camera, PhantomSource
from dermiq.datamodules.phantom.__main__ import main, sheet
from dermiq.datamodules.phantom.canvas import PLAIN, photograph
from dermiq.datamodules.phantom.lesion import render
from dermiq.findings import ATTRIBUTES, VOCABULARY
from dermiq.schema import DataError

PHONE = Camera(cast=(1.12, 1.0, 0.8), softness=0.012, noise=0.05)
DERMATOSCOPE = Camera(cast=(0.62, 0.74, 0.86), contrast=0.7, softness=0.006)


def taken(camera):
    """A photograph of a step from 0.3 to 0.7 of white in the middle, without its outermost pixels."""
    step = np.full((3, 96, 96), 0.3, dtype=np.float32)
    step[:, :, 48:] = 0.7
    return photograph(step, np.random.default_rng(0), camera)[4:-4, 4:-4].astype(float)


def test_the_plain_camera_takes_the_pictures_it_always_took():
    """Means of red, green and blue over two pictures as they were before there was any other camera."""
    source = PhantomSource(2, seed=11)
    means = [np.asarray(source.image(sample.images[0]), float).mean(axis=(0, 1)) for sample in source]
    assert np.allclose(means, [[177.62, 143.12, 113.44], [126.53, 68.95, 56.48]], atol=0.05)
    assert source.image("phantom-11-0.png") == PhantomSource(2, seed=11, camera=Camera()).image("phantom-11-0.png")


def test_a_camera_changes_pictures_and_nothing_else():
    plain, phone = PhantomSource(20, seed=3), PhantomSource(20, seed=3, camera=PHONE)
    assert list(plain) == list(phone)
    again = PhantomSource(30, seed=3, camera=PHONE)
    for sample in phone:
        (reference,) = sample.images
        assert phone.image(reference) == again.image(reference) != plain.image(reference)


def test_cast_scales_the_colours():
    ratios = taken(Camera(cast=(1.1, 0.8, 0.5))).mean(axis=(0, 1)) / taken(PLAIN).mean(axis=(0, 1))
    assert ratios == pytest.approx([1.1, 0.8, 0.5], abs=0.005)


def test_contrast_scales_the_distance_to_grey():
    plain, hazy = taken(PLAIN), taken(Camera(contrast=0.5))
    assert hazy[:, :40].mean() - 127.5 == pytest.approx(0.5 * (plain[:, :40].mean() - 127.5), abs=0.5)
    assert hazy[:, 48:].mean() - 127.5 == pytest.approx(0.5 * (plain[:, 48:].mean() - 127.5), abs=0.5)


def test_softness_is_the_deviation_of_a_gaussian():
    """Beside a step s standard deviations away stands Phi(s) of its height: 0.841 one deviation away.

    One deviation is 0.05 * 96 = 4.8 pixels, and the pixels' middles lie half a pixel off the step.
    """
    plain, soft = (taken(camera).mean(axis=(0, 2)) for camera in (PLAIN, Camera(softness=0.05)))
    low, high = plain[:40].mean(), plain[48:].mean()
    risen = (soft - low) / (high - low)
    assert np.interp(44 + 4.8 - 0.5, np.arange(88), risen) == pytest.approx(0.841, abs=0.04)
    assert np.interp(44 - 4.8 - 0.5, np.arange(88), risen) == pytest.approx(0.159, abs=0.04)
    assert soft.mean() == pytest.approx(plain.mean(), abs=0.5)


def test_noise_adds_to_what_every_picture_has():
    """The grain is one, in two strengths: they differ by from hypot(6, 2.5) - hypot(3, 2.5) = 2.59 % of white, with
    the most noise that a picture has by itself, to hypot(6, 0.5) - hypot(3, 0.5) = 2.98 %, with the least."""
    difference = taken(Camera(noise=0.06)) - taken(Camera(noise=0.03))
    assert 255 * 0.0255 < difference.std() < 255 * 0.0303


@pytest.mark.parametrize("camera", [PHONE, DERMATOSCOPE])
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_findings_stay_visible(camera, attribute):
    """Of each two values, at half the difference that the plain camera shows; noise is left out."""
    findings = {name: values[0] for name, values in VOCABULARY.items()}
    quiet = replace(camera, noise=0.0)
    pictures = [
        render(findings | {attribute: value}, "III", 96, np.random.default_rng(0), camera=quiet).astype(float)
        for value in VOCABULARY[attribute]
    ]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (np.abs(first - second).max(axis=2) > 15.0).mean() > 0.003


@pytest.mark.parametrize(
    "knobs",
    [{"cast": (1.0, 0.0, 1.0)}, {"contrast": float("nan")}, {"softness": 0.6}, {"noise": -0.1}],
)
def test_cameras_that_make_no_sense_are_refused(knobs):
    with pytest.raises(DataError, match=f"the phantom's camera needs .*{next(iter(knobs))}="):
        Camera(**knobs)


def test_the_sheet_shows_a_camera(tmp_path):
    out = tmp_path / "sheet.png"
    options = "--size 32 --count 1 --conditions melanoma --cast 0.5 0.5 1 --contrast 0.8 --softness 0.02 --noise 0.1"
    main(["--preview", str(out), *options.split()])
    with Image.open(out) as page:
        shown = page.convert("RGB").tobytes()
    assert shown == sheet(["melanoma"], 0, 32, 1, Camera((0.5, 0.5, 1.0), 0.8, 0.02, 0.1)).tobytes()
    assert shown != sheet(["melanoma"], 0, 32, 1).tobytes()
