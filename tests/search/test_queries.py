"""One text encoder for both spaces, where it is the same to the bit, changes no vector."""

import numpy as np
import torch

from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.search.service import share_text_encoder, text_query


def test_the_same_text_encoder_is_kept_once_and_gives_the_same_query(trained: Library) -> None:
    run = trained.folder.run("semantic")
    models = [HTCL.from_pretrained(run), HTCL.from_pretrained(run)]
    apart = text_query(models, "slow dark")
    share_text_encoder(models)
    assert models[0].text_encoder is models[1].text_encoder
    together = text_query(models, "slow dark")
    np.testing.assert_array_equal(together.vectors[0], apart.vectors[0])
    np.testing.assert_array_equal(together.vectors[1], models[1].encode_text(["slow dark"]))


def test_another_text_encoder_stays_its_own(trained: Library) -> None:
    run = trained.folder.run("semantic")
    models = [HTCL.from_pretrained(run), HTCL.from_pretrained(run)]
    with torch.no_grad():
        next(models[1].text_encoder.parameters()).add_(1e-3)
    share_text_encoder(models)
    assert models[0].text_encoder is not models[1].text_encoder
