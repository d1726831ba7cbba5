"""Makes the starter model that ships with the package: the same bytes each time.

    python bench/starter.py PATH/TO/freemusic --work WORK_FOLDER

Stage one by its questions alone, over sound and machine tags of the tracks: the vocabulary are the
taggers' tags, and no text that anybody wrote is learned. WORK_FOLDER keeps the prepared frames.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from freemusic import prepared, read_catalogue
from ponticello.config import Config
from ponticello.features.musicnn_frontend import (
    BLOCKS,
    FRAME_SIZE,
    rank_tags,
    tagger_scores,
    tagger_tags,
)
from ponticello.features.store import FeatureStore
from ponticello.model.adapter import fit_feature_projection
from ponticello.model.htcl import HTCL
from ponticello.model.semantic_space import Vocabulary, fit_semantic_space, fit_text_axes
from ponticello.model.starter import FILE, PREFIXES
from ponticello.storage.schema import MACHINE_TAGS
from ponticello.tracks.text import track_text
from ponticello.train.questions import build_questions
from ponticello.train.semantic import TAG_WORDING

SEED = 3407
N_WORDS = 8_000
N_STEPS = 600
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01


def train_starter(frames: Sequence[np.ndarray], seed: int = SEED) -> dict[str, Tensor]:
    """Returns the starter's weights, trained on tracks' frames (T, F).

    Matrices are float16: what they lose by it is below what any figure shows.
    """
    torch.manual_seed(seed)
    tags = tagger_tags()
    model = HTCL.from_settings(Config.from_preset("small"), False, FRAME_SIZE, "", tags)
    means = np.array([frame.mean(axis=0, dtype=np.float64) for frame in frames])
    fit_feature_projection(model.audio_encoder, model.audio_head, means, BLOCKS)
    audio = model.encode_audio_block([mean[None] for mean in means])
    machine_tags = [list(rank_tags(frame)) for frame in frames]
    texts = [track_text({MACHINE_TAGS: names}) for names in machine_tags]
    states = model.encode_text_states(texts)
    tag_states = model.encode_text_states([TAG_WORDING.format(tag) for tag in tags])
    given = np.array([[tag in names for tag in tags] for names in machine_tags])
    heard = Vocabulary(tags, tag_states, np.zeros((len(means), 0)), tagger_scores(means))
    space = model.semantic_space
    fit_semantic_space(space, audio, states, heard)
    questions = build_questions(model, audio, states, given, N_WORDS, seed)
    assert questions is not None
    # The texts of other libraries are not only machine tags: axes of all that is asked.
    fit_text_axes(space, questions.states)
    fit_semantic_space(space, audio, states, heard, refits_text_axes=False)
    parameters = [*model.text_head.parameters(), model.logit_scales["audio_text"]]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=N_STEPS, pct_start=0.1
    )
    model.text_head.train(True)
    for step in range(N_STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(questions.loss(model, step))
        optimizer.step()
        schedule.step()
    weights = {}
    for name, weight in model.state_dict().items():
        if name.startswith(PREFIXES):
            value = weight.half() if weight.ndim > 1 else weight.float()
            weights[name] = value.contiguous()
    return weights


def main() -> None:
    """Reads the tracks and writes the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv, auto_tags.csv and audio/")
    parser.add_argument(
        "--work", type=Path, required=True, help="where the prepared frames are kept"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    base = prepared(given.work / "base", given.folder, 2)
    store = FeatureStore(base.frames)
    track_ids = [row["track_id"] for row in read_catalogue(given.folder)]
    data = save(train_starter([store.read(track_id) for track_id in track_ids]))
    FILE.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    print(f"{FILE.name}: {len(data):,} bytes, {len(track_ids)} tracks, sha256 {sha256}")


if __name__ == "__main__":
    main()
