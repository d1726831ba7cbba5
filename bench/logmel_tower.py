"""What makes the log-mel tower learn better: hop, crops, augmentation and losses, each against the same reference.

    python bench/logmel_tower.py PATH/TO/freemusic --work WORK_FOLDER --seeds 3

Stage one alone, trained from scratch with a small tower: game- and artist-disjoint split and initial weights by seed,
texts of names and machine tags, measured on the test tracks. Prints Markdown: the table of `docs/benchmarks.md`.
WORK_FOLDER keeps the prepared mels and each row's figures: an interrupted run goes on.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from freemusic import read_catalogue, roles, together, write_tracks
from logmel_candidates import AveragingTrainer, MaskingTrainer, SigmoidLoss, TokenDropping, UniformLoss
from ponticello.config import Config, MelConfig
from ponticello.data.batch import pad_mels
from ponticello.data.catalog import audio_files, read_tracks
from ponticello.data.columns import MACHINE_TAGS, TRACK_ID
from ponticello.data.dataset import Collator, track_dataset
from ponticello.data.mel import mel_key, mel_of_file
from ponticello.data.prepare import FrontEnd, prepare_frames
from ponticello.data.store import FrameStore
from ponticello.data.text import track_texts
from ponticello.evaluate.intervals import bootstrap_mean
from ponticello.evaluate.probe import probe_scores
from ponticello.evaluate.semantic import music_to_music_scores, retrieval_figures, retrieval_scores
from ponticello.library import Folder, create_library, open_library
from ponticello.model.htcl import HTCL
from ponticello.model.htcl_config import HTCLConfig
from ponticello.train.arguments import training_arguments
from ponticello.train.stages import semantic_stage
from ponticello.train.trainer import HTCLTrainer

ROUNDS = 1000
CROP_SECONDS = 10.0
HOPS: dict[int, dict[str, Any]] = {  # ms
    96: {"max_seconds": 30.0},
    20: {"max_seconds": 30.0, "n_fft": 1024, "hop_length": 320},
}
SMALL = {
    "front_end": "logmel",
    "heads": {"hidden_sizes": [128], "embed_dim": 64, "fusion_hidden_sizes": [64], "dropout": 0.1},
    "semantic": {
        "batch_size": 32,
        "max_steps": 300,
        "audio_lr": 1e-3,
        "heads_lr": 1e-3,
        "evaluate_every": 50,
        "patience": 10,
    },
}
# A text tower that nothing asks: what the real one says of each text is computed once.
NO_TEXT = {"model_type": "bert", "vocab_size": 2, "hidden_size": 384, "num_hidden_layers": 1}
NO_TEXT |= {"num_attention_heads": 1, "intermediate_size": 1}


@dataclass(frozen=True)
class Row:
    """One row of the table. trained: what else differs from the first row."""

    hop_ms: int = 96
    crops: bool = True  # trained on random crops
    mean: bool = True  # a track is the mean of its crops; else heard whole, by the very same weights
    trained: str = ""


REFERENCE = ("96 ms, crops, mean of crops", "96 ms, the same from other initial weights")
FINE = ("20 ms, crops, mean of crops", "20 ms, the same from other initial weights")
ROWS = {
    REFERENCE[0]: Row(),
    REFERENCE[1]: Row(trained="other weights"),
    "96 ms, crops, heard whole": Row(mean=False),
    "96 ms, whole tracks": Row(crops=False, mean=False),
    FINE[0]: Row(20),
    FINE[1]: Row(20, trained="other weights"),
    "20 ms, crops, heard whole": Row(20, mean=False),
    "20 ms, whole tracks": Row(20, crops=False, mean=False),
    "20 ms, half of the tokens dropped": Row(20, trained="dropping"),
    "96 ms, half of the tokens dropped": Row(trained="dropping"),
    "96 ms, SpecAugment": Row(trained="masks"),
    "96 ms, mean of weights (EMA)": Row(trained="averaging"),
    "96 ms, SigLIP instead of InfoNCE": Row(trained="sigmoid"),
    "96 ms, uniformity added": Row(trained="uniformity"),
}


@dataclass
class Figures:
    """A number a query in every metric, and the cluster each query is of, by metric."""

    values: dict[str, list[float]] = field(default_factory=dict)
    clusters: dict[str, list[str]] = field(default_factory=dict)


class NormalisedMels:
    """A store of mels as `pad_mels` brings them to mean 0 and deviation 1, kept in memory once read."""

    def __init__(self, store: FrameStore, config: MelConfig) -> None:
        self.store, self.config, self.track_ids = store, config, store.track_ids
        self.kept: dict[str, np.ndarray] = {}

    def __contains__(self, track_id: object) -> bool:
        return track_id in self.store

    def read(self, track_id: str) -> np.ndarray:
        """(T, F) float32."""
        if track_id not in self.kept:
            self.kept[track_id] = pad_mels([self.store.read(track_id)], self.config, 1)[0][0].numpy()
        return self.kept[track_id]


class Catalogue:
    """The tracks, their texts and the mels of each hop."""

    def __init__(self, work: Path, source: Path, workers: int) -> None:
        rows = read_catalogue(source)
        root = work / "library"
        self.folder = open_library(root) if (root / "ponticello.toml").is_file() else create_library(root, "tiny")
        write_tracks(self.folder, [{**row, "split": ""} for row in rows])
        tracks = read_tracks(self.folder).sort(TRACK_ID)
        self.ids, self.texts = tracks[TRACK_ID].to_list(), track_texts(tracks)
        self.tags = tracks[MACHINE_TAGS].to_list()
        component = dict(zip((row["track_id"] for row in rows), together(rows), strict=True))
        self.components = [component[track_id] for track_id in self.ids]
        self.stores = {hop: _prepared(self.folder, work, hop, workers) for hop in HOPS}
        self.normalised = {
            hop: NormalisedMels(store, MelConfig.model_validate(HOPS[hop])) for hop, store in self.stores.items()
        }
        set_seed(0)
        self.states = HTCL.from_settings(settings_of(Row(), 0)).encode_text_states(self.texts)


def _prepared(folder: Folder, work: Path, hop_ms: int, workers: int) -> FrameStore:
    config = MelConfig.model_validate(HOPS[hop_ms])
    front_end = FrontEnd(work / f"mels-{hop_ms}", mel_key(config), partial(mel_of_file, config=config), "prepare")
    with folder.lock():
        prepare_frames(folder, audio_files(folder), front_end, workers=workers)
    return FrameStore(front_end.place)


def settings_of(row: Row, seed: int) -> Config:
    """The settings of a row's run."""
    crop = CROP_SECONDS if row.crops else 0.0
    config = Config.from_preset("tiny", {**SMALL, "mel": HOPS[row.hop_ms], "audio": {"crop_seconds": crop}})
    seed += 1000 * (row.trained == "other weights")
    return config.model_copy(update={"semantic": config.semantic.model_copy(update={"seed": seed})})


def run_rows(rows: Sequence[Row], seed: int, catalogue: Catalogue, checkpoints: Path) -> list[Figures]:
    """Trains once, on one seed's split, and measures each of `rows`, which differ in how a test track is heard."""
    row = rows[0]
    config, part = settings_of(row, seed), roles(catalogue.components, seed)
    own = {role: [i for i, r in zip(catalogue.ids, part, strict=True) if r == role] for role in ("train", "validation")}
    texts = dict(zip(catalogue.ids, catalogue.texts, strict=True))
    store = catalogue.normalised[row.hop_ms]
    training, validation = (track_dataset(store, texts, own[role]) for role in own)  # type: ignore[arg-type]
    set_seed(config.semantic.seed)
    model, stage = HTCL(HTCLConfig(config.model_dump(mode="json"), NO_TEXT)), semantic_stage(config)
    if row.trained == "sigmoid":
        stage = replace(stage, loss=SigmoidLoss(), idle=tuple(n for n in stage.idle if not n.endswith("audio_audio")))
        torch.nn.init.constant_(model.logit_scales["audio_audio"], -np.log(config.semantic.batch_size - 1))
    if row.trained == "uniformity":
        stage = replace(stage, loss=UniformLoss())
    if row.trained == "dropping":
        model.audio_encoder.layers = torch.nn.ModuleList([TokenDropping(model.audio_encoder.layers)])
    states = torch.zeros(len(texts), catalogue.states.shape[1])
    states[[training.text_numbers[track_id] for track_id in catalogue.ids]] = torch.from_numpy(catalogue.states)
    collator = Collator(_no_tokenizer, None, 1, config.text.max_tokens, states)
    stage.freeze_idle(model)
    make: Callable[..., HTCLTrainer] = {"masks": MaskingTrainer, "averaging": AveragingTrainer}.get(
        row.trained, HTCLTrainer
    )
    arguments = training_arguments(config.semantic, checkpoints, config.semantic.batch_size, 1)
    unseen = frozenset(own["validation"])
    trainer = make(model, stage, training, validation, collator, arguments, unseen, retrieval_figures, [])
    trainer.train()
    found = []
    for row in rows:
        if not row.mean:
            model.parts = config.model_copy(update={"audio": config.audio.model_copy(update={"crop_seconds": 0.0})})
        audio = model.encode_mels([catalogue.stores[row.hop_ms].read(track_id) for track_id in catalogue.ids])
        with torch.no_grad():
            text = F.normalize(model.train(False).project_text(torch.from_numpy(catalogue.states)), dim=-1).numpy()
        found.append(measure(audio, text, part, catalogue))
    return found


def _no_tokenizer(text: list[str], **options: Any) -> Any:
    raise NotImplementedError("every text is encoded once, before the first run")


def measure(audio: np.ndarray, text: np.ndarray, part: list[str], catalogue: Catalogue) -> Figures:
    """Texts that find their test track, machine tags read off by a line, neighbours that share machine tags."""
    test = [row for row, role in enumerate(part) if role == "test"]
    ids, clusters = [catalogue.ids[row] for row in test], [catalogue.components[row] for row in test]
    found = retrieval_scores({"m": text[test]}, {"m": audio[test]}, ids, clusters)
    wanted = [score for score in found if score.task == "text to audio" and score.metric in ("R@10", "MRR")]
    scores = {f"text to audio {score.metric}": score for score in wanted}
    probed, _ = probe_scores({"m": audio}, catalogue.tags, part, catalogue.ids, catalogue.components, MACHINE_TAGS)
    scores["machine tags, probe AUC"] = probed[0]
    sets = [set(catalogue.tags[row] or ()) for row in test]
    near = music_to_music_scores({"m": audio[test]}, sets, ids, clusters, MACHINE_TAGS)
    scores["same machine tags, NDCG@10"] = near[0]
    figures = Figures()
    for name, score in scores.items():
        figures.values[name] = score.by_method["m"].tolist()
        figures.clusters[name] = score.clusters or score.queries
    return figures


def table(seeds: dict[int, dict[str, Figures]], reference: tuple[str, str]) -> str:
    """A row a variant: the mean over all seeds' queries, and the interval of its paired difference to the reference.

    reference: two trainings, of which the mean counts; how far each of them lies from it shows what chance alone does,
    which the intervals, over queries, do not hold. Drawn together: a seed's tracks of a game, all seeds' of a tag.
    """
    metrics = list(next(iter(next(iter(seeds.values())).values())).values)
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name in next(iter(seeds.values())):
        cells = []
        for metric in metrics:
            own = np.concatenate([rows[name].values[metric] for rows in seeds.values()])
            other = np.concatenate([np.mean([rows[r].values[metric] for r in reference], 0) for rows in seeds.values()])
            labels = [
                cluster if "probe" in metric else f"{seed} {cluster}"
                for seed, rows in seeds.items()
                for cluster in rows[name].clusters[metric]
            ]
            _, low, high = bootstrap_mean(own - other, np.unique(labels, return_inverse=True)[1], ROUNDS, 0)
            cells.append(f"{np.nanmean(own):.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("--work", type=Path, required=True, help="where mels and figures are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS), help="and always the reference")
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    catalogue = Catalogue(options.work, options.source, options.workers)
    seeds: dict[int, dict[str, Figures]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        seeds[seed] = {}
        for alike in _trained_alike([name for name in ROWS if name in options.only or name in REFERENCE]):
            seeds[seed] |= _kept_or_run(options.work, alike, seed, catalogue)
    for reference in (REFERENCE, FINE):
        if all(set(reference) <= set(rows) for rows in seeds.values()):
            print(f"brackets: minus the mean of the rows {' and '.join(reference)!r}\n\n{table(seeds, reference)}\n")


def _trained_alike(names: list[str]) -> list[list[str]]:
    """The rows in groups that one training serves."""
    groups: dict[Row, list[str]] = {}
    for name in names:
        groups.setdefault(replace(ROWS[name], mean=True), []).append(name)
    return list(groups.values())


def _kept_or_run(work: Path, names: list[str], seed: int, catalogue: Catalogue) -> dict[str, Figures]:
    """By row, the figures of an earlier run with the same settings, or those of a new one."""
    rows = [ROWS[name] for name in names]
    made = repr((rows, settings_of(rows[0], seed)))
    file = work / "figures" / f"{list(ROWS).index(names[0]):02d}-seed-{seed}.json"
    if file.is_file() and (record := json.loads(file.read_text(encoding="utf-8")))["made"] == made:
        return {name: Figures(**found) for name, found in record["figures"].items()}
    started, checkpoints = time.monotonic(), work / f"checkpoints-{seed}"
    figures = dict(zip(names, run_rows(rows, seed, catalogue, checkpoints), strict=True))
    shutil.rmtree(checkpoints)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"made": made, "figures": {name: asdict(found) for name, found in figures.items()}}))
    for name, found in figures.items():
        means = ", ".join(f"{metric} {np.nanmean(values):.3f}" for metric, values in found.values.items())
        print(f"seed {seed}: {name}: {time.monotonic() - started:.0f} s: {means}", flush=True)
    return figures


if __name__ == "__main__":
    main()
