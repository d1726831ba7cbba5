"""How many tracks a second training's loader gives from prepared log-mels, with 0, 1 and 2
processes beside the step.

    OMP_NUM_THREADS=1 python bench/loader.py --json loader.json

The store, the dataset and the collator are those of a run of stage one, and the batches are as the
tower takes them: read, normalised, padded; texts are vectors that are known, as of a frozen text
tower. Log-mels are random numbers, and each was read before, so that its hash is checked; only time
means anything. Processes are started before the clock is. The limit is the same store read and
copied, and nothing else. Cases take turns. Nothing else is done meanwhile: beside a step on the CPU
there would be no core for them.
Prints Markdown: the table of `docs/speed.md`.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ponticello.config import Config, MelConfig
from ponticello.features.extraction import ExtractionJob
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import create_library
from ponticello.train.dataset import Collator, TrackTuples
from timing import in_turn, said

WORKERS = (0, 1, 2)
BATCH = 64
N_BATCHES = 8
WORKS = (("paper", 30), ("paper", 120), ("base", 30))  # preset, s
TEXT_SIZE = 384
MIN_FRAMES = 20


def made_store(root: Path, n_frames: int, n_mels: int) -> FeatureStore:
    """A store of random log-mels, written as `prepare` does, every track read once."""
    folder, sound = create_library(root), root / "sound"
    sound.write_bytes(b"sound")
    mel = np.random.default_rng(0).uniform(-80, 0, (n_frames, n_mels)).astype(np.float16)
    front_end = ExtractionJob(folder.mels, "same", partial(_same, mel=mel), "prepare", is_safe=True)
    prepare_features(
        folder, {f"t{number:05}": sound for number in range(BATCH * N_BATCHES)}, front_end
    )
    store = FeatureStore(folder.mels)
    for track_id in store.track_ids:
        store.read(track_id)
    return store


def _same(_path: Path, _track_id: str, mel: np.ndarray) -> np.ndarray:
    return mel


def one_pass(loader: DataLoader[Any]) -> None:
    """All batches; the loader's processes live on."""
    for _ in loader:
        pass


def passes(store: FeatureStore, mel: MelConfig) -> Iterator[tuple[str, Callable[[], None]]]:
    """A pass over all tracks in random order, for each number of processes."""
    texts = dict.fromkeys(store.track_ids, "slow piano at night")
    dataset = TrackTuples(store, texts, [(track_id,) for track_id in store.track_ids])
    no_tokenizer: Any = None
    collator = Collator(
        no_tokenizer, mel, MIN_FRAMES, 128, torch.zeros(len(texts) + 1, 1, TEXT_SIZE), None
    )
    for n in WORKERS:
        options: dict[str, Any] = {"num_workers": n, "persistent_workers": n > 0}
        order = torch.utils.data.RandomSampler(dataset, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(dataset, BATCH, sampler=order, collate_fn=collator, **options)
        yield str(n), partial(one_pass, loader)


def processor_ms(case: Callable[[], None]) -> float:
    """Of this process, a track: what no other work on the machine changes much."""
    start = process_time()
    case()
    return (process_time() - start) / (BATCH * N_BATCHES) * 1000


def copied(store: FeatureStore) -> None:
    """Every track, and nothing done with it."""
    buffer = np.empty_like(store.read(store.track_ids[0]))
    for track_id in store.track_ids:
        np.copyto(buffer, store.read(track_id))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="every number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| log-mels of | frames | processor time a track | 0: tracks/s | 1 | 2 "
        "| 0 takes, of 2 | read and copied |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    for preset, seconds in WORKS:
        mel = Config.from_preset(preset).mel.model_copy(update={"released_padding": False})
        n_frames = 1 + seconds * mel.sample_rate // mel.hop_length
        with TemporaryDirectory() as work:
            store = made_store(Path(work) / "library", n_frames, mel.n_mels)
            cases: dict[str, Callable[[], None]] = {
                **dict(passes(store, mel)),
                "copy": partial(copied, store),
            }
            timed = in_turn(cases, options.runs)
            own_ms = [processor_ms(cases["0"]) for _ in range(options.runs)]
        per_s = {name: BATCH * N_BATCHES / timed.median(name) for name in cases}
        gain = timed.ratio("0", "2")
        cells = " | ".join(f"{per_s[str(n)]:,.0f}" for n in WORKERS)
        own = f"{median(own_ms):.2f} ms"
        print(
            f"| {seconds} s, `{preset}` | {n_frames:,} | {own} | {cells} | {said(gain)} "
            f"| {per_s['copy']:,.0f} |",
            flush=True,
        )
        rows.append(
            {"preset": preset, "seconds": seconds, "tracks_per_s": per_s, "two_for_none": gain}
        )
        rows[-1]["processor_ms"] = own_ms
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
