"""Pictures: our sampler is the pipeline's, files are read as people see them, and what is refused."""

from __future__ import annotations

import io
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason='needs pip install "hearken[image]"')

import torch
from PIL import Image
from pipelines import pixel_flow, stable_diffusion

from hearken.domains.base import domain_of, find_domain
from hearken.domains.image import figures
from hearken.domains.image.codec import read_picture, write_png
from hearken.domains.image.domain import DOMAIN, PictureSampling
from hearken.domains.image.rewarding import PictureReward
from hearken.domains.image.tensors import to_bytes
from hearken.errors import UserError
from hearken.feedback.media import MediaFolder
from hearken.models.diffusion import open_denoiser

PROMPTS = ["a red circle above a blue square", "a blue square"]


@pytest.fixture(scope="module")
def prx(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp("prx")
    return str(folder), pixel_flow(folder, noise_scale=2.0, shift=3.0)


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp("sd")
    return str(folder), stable_diffusion(folder)


def starts(denoiser: Any) -> torch.Tensor:
    return denoiser.start([torch.Generator().manual_seed(seed) for seed in (1, 2)])


# -- the sampler ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_flow_sampler_is_the_pipelines(
    prx: tuple[str, Any], guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt at a time: with guidance the pipeline takes no more."""
    folder, pipe = prx
    denoiser = open_denoiser(folder, 6, guidance)
    start = starts(denoiser)
    with torch.no_grad():
        ours = denoiser.to_pictures(denoiser.sample(denoiser.encode(PROMPTS), start))
    pipe.set_progress_bar_config(disable=True)
    even = np.linspace(1, 1 / 6, 6)
    pipe.scheduler.set_timesteps(sigmas=even)
    np.testing.assert_allclose(denoiser.sigmas, pipe.scheduler.sigmas, atol=1e-6)
    schedule = partial(pipe.scheduler.set_timesteps, sigmas=even)
    monkeypatch.setattr(pipe.scheduler, "set_timesteps", lambda *_, device=None: schedule(device=device))
    theirs = [
        pipe(
            prompt, latents=start[row : row + 1], guidance_scale=guidance, num_inference_steps=6, output_type="pt",
            use_resolution_binning=False,
        ).images[0]
        for row, prompt in enumerate(PROMPTS)
    ]  # fmt: skip
    torch.testing.assert_close(ours, torch.stack(theirs), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_ddim_is_the_pipelines(sd: tuple[str, Any], eta: float, guidance: float) -> None:
    folder, pipe = sd
    denoiser = open_denoiser(folder, 5, guidance)
    start = starts(denoiser)
    ours_draws, theirs_draws = (torch.Generator().manual_seed(3) for _ in "ab")
    with torch.no_grad():
        latent = denoiser.sample(
            denoiser.encode(PROMPTS), start, eta, lambda x: torch.randn(x.shape, generator=ours_draws)
        )
        ours = to_bytes(denoiser.to_pictures(latent))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPTS, latents=start, guidance_scale=guidance, num_inference_steps=5, eta=eta, generator=theirs_draws,
        output_type="np",
    ).images  # fmt: skip
    for a, b in zip(ours, (theirs * 255).round(), strict=True):
        assert abs(a.astype(float) - b).max() <= 1


@pytest.mark.parametrize("kind", ["prx", "sd"])
def test_a_policy_answers_by_prompt_seed_and_number_alone(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, _ = request.getfixturevalue(kind)
    assert domain_of(folder).name == "image"
    files, how = MediaFolder(tmp_path), PictureSampling(steps=3)

    def drawn(prompts: list[str], k: int, seed: int = 0) -> list[Any]:
        return [one for part in DOMAIN.sample(folder, prompts, k, how, seed, files) for one in part]

    every = drawn(PROMPTS, 2)
    assert [(one.prompt, one.number) for one in every] == [(p, n) for p in PROMPTS for n in range(2)]
    assert len({one.content for one in every}) == 4
    (alone,) = drawn(PROMPTS[1:], 1)
    again = DOMAIN.read(every[2].content, files)
    assert abs(DOMAIN.read(alone.content, files).astype(int) - again).max() <= 1
    assert drawn(PROMPTS, 1, seed=1)[0].content != every[0].content
    seen = DOMAIN.measure(folder, folder, PROMPTS, how, 0, files)
    assert set(seen.figures) == set(DOMAIN.figures) and all(0 <= one.estimate <= 1 for one in seen.figures.values())
    assert DOMAIN.describe(alone.content, files)["pixels"] == "16 x 16"


@pytest.mark.parametrize(("kind", "longest"), [("prx", 10), ("sd", 77)])
def test_prompts_that_are_cut_are_said(kind: str, longest: int, request: pytest.FixtureRequest) -> None:
    denoiser = open_denoiser(request.getfixturevalue(kind)[0])
    alike = " ".join(["red"] * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoiser.check_prompts(["a red circle", "a blue square", "a red circle"])
    with pytest.warns(UserWarning, match=f"1 of 2 prompts are cut: the text encoder reads {longest} tokens"):
        denoiser.check_prompts(["a red circle", alike])
    for pair in ([f"{alike} circle", f"{alike} square"], [f"{alike} square", f"{alike} circle"]):
        with pytest.raises(UserError, match="the same to the text encoder"):
            denoiser.check_prompts(pair)


@pytest.mark.parametrize("kind", ["prx", "sd"])
def test_a_reward_model_is_kept_and_differentiable(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder, _ = request.getfixturevalue(kind)
    model = PictureReward.of(folder)
    model.save(tmp_path / "reward")
    pictures = [np.random.default_rng(n).integers(0, 256, (16, 16, 3), dtype=np.uint8) for n in range(2)]
    wanted = model.score(PROMPTS, pictures)
    files = MediaFolder(tmp_path)
    contents = [[files.keep(write_png(picture)).path] for picture in pictures]
    scored = DOMAIN.scorer(str(tmp_path / "reward"), files)(PROMPTS, contents)
    np.testing.assert_allclose(scored, [[one] for one in wanted], rtol=1e-4)
    large = np.kron(pictures[0], np.ones((4, 4, 1), np.uint8))
    np.testing.assert_allclose(model.score(PROMPTS[:1], [large]), wanted[:1], rtol=1e-4)
    shown = torch.zeros(1, 3, 16, 16, requires_grad=True)
    model(shown, model.denoiser.encode(PROMPTS[:1])).sum().backward()
    assert shown.grad is not None and shown.grad.abs().sum() > 0
    (tmp_path / "reward" / "reward.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="no reward model"):
        DOMAIN.scorer(str(tmp_path / "reward"), files)


# -- what is no pipeline ---------------------------------------------------------------------------------------------


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        DOMAIN.check_model(str(tmp_path))
    folder = tmp_path / "pipe"
    pixel_flow(folder)
    DOMAIN.check_model(str(folder))
    (folder / "transformer").rename(folder / "gone")
    with pytest.raises(UserError, match="lacks transformer"):
        DOMAIN.check_model(str(folder))
    (folder / "gone").rename(folder / "transformer")
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    for change, words in (
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "no density"),
        ({"_class_name": "LCMScheduler"}, "no density"),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting is on"),
    ):  # fmt: skip
        file.write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=words) as error:
            DOMAIN.check_model(str(folder))
        assert error.value.hint
    file.write_text(json.dumps(config))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("PRXPixelPipeline", "KandinskyPipeline"))
    with pytest.raises(UserError, match="KandinskyPipeline"):
        DOMAIN.check_model(str(folder))


def test_options_of_texts_are_refused() -> None:
    for wrong in ({"top_k": 5}, {"max_new_tokens": 5}, {"temperature": 0.5}, {"guidance": 0.5}, {"steps": 0}):
        with pytest.raises(UserError):
            PictureSampling.parse(wrong)


# -- files -----------------------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def test_pictures_are_read_as_they_are_seen() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_picture(write_png(picture)), picture)
    assert write_png(picture) == write_png(picture.copy())
    plain = Image.new("RGB", (8, 4), (200, 30, 30))
    assert read_picture(saved(plain.convert("CMYK"), "JPEG")).shape == (4, 8, 3)
    assert read_picture(saved(plain.convert("L"), "PNG")).shape == (4, 8, 3)
    assert read_picture(saved(plain.convert("P"), "GIF")).shape == (4, 8, 3)
    deep = Image.fromarray(np.full((4, 8), 65535 // 2, np.uint16))
    assert abs(int(read_picture(saved(deep, "PNG"))[0, 0, 0]) - 127) <= 1
    assert (read_picture(saved(Image.new("RGBA", (8, 4), (0, 0, 0, 0)), "PNG")) == 255).all(), "on white"
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(saved(plain, "JPEG", exif=exif)).shape == (8, 4, 3), "turned as a person sees it"


def test_files_that_are_refused() -> None:
    good = write_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    moving = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    wide = saved(Image.new("1", (5000, 10)), "PNG")
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    refused = [(svg, "is no picture"), (b"", "is no picture"), (good[:200], "cannot be read"), (moving, "moves")]
    for data, words in [*refused, (bomb, "exceeds limit"), (wide, "too large")]:
        with pytest.raises(UserError, match=words):
            read_picture(data)
        with pytest.raises(UserError):
            find_domain("image").admit(data)
    find_domain("image").admit(good)


def test_figures() -> None:
    black, white = (np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
    assert figures.distance(black, white) == 1.0 and figures.brightness(white) == 1.0
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert figures.saturation(red) == 1.0 and figures.saturation(white) == 0.0
    checks = ((np.indices((8, 8)).sum(0) % 2) * 255).astype(np.uint8)[..., None].repeat(3, -1)
    assert figures.sharpness(checks) == 1.0 and figures.sharpness(red) == 0.0 == figures.sharpness(red[:2])
