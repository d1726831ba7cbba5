"""A mixed model lies between its two ends, weight by weight."""

import numpy as np
import pytest
import torch

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.library import Library
from ponticello.model.htcl import HTCL, HTCLConfig
from ponticello.model.interpolate import interpolate_weights


def test_the_ends_are_the_two_models_and_the_middle_is_their_mean(trained: Library) -> None:
    one, two = (HTCL.from_pretrained(trained.folder.run(run)) for run in ("semantic", "preference"))
    sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 10
    for alpha, model in ((0.0, one), (1.0, two)):
        np.testing.assert_allclose(
            interpolate_weights(one, two, alpha).encode_audio([sound]),
            model.encode_audio([sound]),
            atol=1e-6,
        )
    start, end = one.state_dict(), two.state_dict()
    for name, weight in interpolate_weights(one, two, 0.5).state_dict().items():
        if weight.is_floating_point():
            torch.testing.assert_close(weight, (start[name] + end[name]) / 2)


def test_the_mixture_lies_where_the_second_does(trained: Library) -> None:
    """What was trained may be on a GPU while what it began with was read from the disk; meta is a
    device everywhere.
    """
    one, two = (HTCL.from_pretrained(trained.folder.run(run)) for run in ("semantic", "preference"))
    mixed = interpolate_weights(one, two.to(torch.device("meta")), 0.5)  # type: ignore[arg-type]
    assert {weight.device.type for weight in mixed.state_dict().values()} == {"meta"}


def test_the_two_models_stay_as_they_were(trained: Library) -> None:
    one, two = (HTCL.from_pretrained(trained.folder.run(run)) for run in ("semantic", "preference"))
    before = {name: weight.clone() for name, weight in two.state_dict().items()}
    interpolate_weights(one, two, 0.3)
    assert all(torch.equal(weight, before[name]) for name, weight in two.state_dict().items())


def test_models_of_other_layouts_are_refused(trained: Library) -> None:
    one = HTCL.from_pretrained(trained.folder.run("semantic"))
    settings = one.settings.model_dump(mode="json")
    settings["audio"]["n_layers"] = 1
    other = HTCL(
        HTCLConfig(Config.model_validate(settings).model_dump(mode="json"), one.config.text_config)
    )
    with pytest.raises(
        CheckpointError,
        match="models of different layouts cannot be mixed; they differ in audio_encoder",
    ):
        interpolate_weights(one, other, 0.5)
