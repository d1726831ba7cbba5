"""What smaller files and shorter vectors cost: ONNX in int8, and vectors cut to their first coordinates.

    python bench/smaller.py LIBRARY --tags PATH/TO/auto_tags.csv [--run starter]

Asked are the tags that 10 tracks or more carry, and every track. Against the run's own vectors in float32: how many of
an answer's ten tracks stay, and how many of the ten carry the tag that was asked for. Prints Markdown.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from onnxruntime.quantization import QuantType, quantize_dynamic

from ponticello.api import Library
from ponticello.data.batch import tokenize
from ponticello.data.store import FrameStore
from ponticello.model.front_end import frames_for
from ponticello.model.htcl import HTCL
from ponticello.model.onnx_export import AUDIO, TEXT, Run, export_onnx, run_onnx
from ponticello.model.space import run_config, space_id
from ponticello.train.finished import STARTER
from ponticello.train.starter import starter_run

K = 10
FEWEST = 10  # tracks that carry a tag that is asked for


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def best(queries: np.ndarray, tracks: np.ndarray, is_itself: bool = False) -> np.ndarray:
    """(q, K) the closest tracks to each query; is_itself: query i is track i, and no answer."""
    scores = unit(queries) @ unit(tracks).T
    if is_itself:
        np.fill_diagonal(scores, -np.inf)
    order: np.ndarray = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return order


def kept(found: np.ndarray, wanted: np.ndarray) -> float:
    """The share of `wanted`'s rows that `found`'s rows hold."""
    return float(np.mean([len(set(one) & set(other)) / K for one, other in zip(found, wanted, strict=True)]))


def of_tracks(run: Run, store: FrameStore) -> np.ndarray:
    """Every track by an ONNX file, one at a time: (n, d)."""
    rows = [store.read(track_id).astype(np.float32)[None] for track_id in store.track_ids]
    return np.concatenate([run(row, np.zeros(row.shape[:2], dtype=bool)) for row in rows])


def of_texts(run: Run, model: HTCL, texts: list[str]) -> np.ndarray:
    """Every text by an ONNX file, one at a time: (n, d)."""
    tokens = [tokenize([text], model.tokenizer, model.parts.text.max_tokens) for text in texts]
    return np.concatenate([run(*(ids.numpy() for ids in one.values())) for one in tokens])


def main() -> None:
    """Prints one row a variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--tags", type=Path, required=True)
    parser.add_argument("--run", default=STARTER)
    options = parser.parse_args()
    folder = Library.open(options.library).folder
    if options.run == STARTER:
        starter_run(folder)
    place = folder.run(options.run)
    model, store = HTCL.from_pretrained(place), frames_for(folder, run_config(place))
    table = pl.read_csv(options.tags).filter(pl.col("track_id").is_in(store.track_ids))
    rows = {track_id: row for row, track_id in enumerate(store.track_ids)}
    carried = {str(tag): {rows[one] for one in group["track_id"]} for (tag,), group in table.group_by("tag")}
    tags = sorted(tag for tag, tracks in carried.items() if len(tracks) >= FEWEST)
    tracks, texts = model.encode_mels([store.read(track_id) for track_id in store.track_ids]), model.encode_text(tags)
    told, near = best(texts, tracks), best(tracks, tracks, is_itself=True)
    print(f"{len(store):,} tracks, {len(tags)} tags, run {options.run!r}, {tracks.shape[1]} coordinates\n")
    print("| vectors | bytes a track | audio, text MB | kept of a text's ten | kept of a track's ten | carry the tag |")
    print("|---|---|---|---|---|---|")

    def row(name: str, asked: np.ndarray, held: np.ndarray, files: str = "-") -> None:
        found = best(asked, held)
        right = np.mean([len(set(ten) & carried[tag]) / K for tag, ten in zip(tags, found, strict=True)])
        similar = kept(best(held, held, is_itself=True), near)
        print(f"| {name} | {4 * held.shape[1]} | {files} | {kept(found, told):.3f} | {similar:.3f} | {right:.3f} |")

    with TemporaryDirectory() as work:
        whole, small = Path(work) / "float32", Path(work) / "int8"
        export_onnx(model, whole, space_id(place))
        small.mkdir()
        for file in (AUDIO, TEXT):
            quantize_dynamic(whole / file, small / file, weight_type=QuantType.QInt8)
        row("PyTorch", texts, tracks)
        for name, towers in (("ONNX float32", whole), ("ONNX int8", small)):
            sizes = ", ".join(f"{(towers / file).stat().st_size / 1e6:.1f}" for file in (AUDIO, TEXT))
            asked, held = of_texts(run_onnx(towers / TEXT), model, tags), of_tracks(run_onnx(towers / AUDIO), store)
            row(name, asked, held, sizes)
    for size in (192, 128, 96, 64, 32, 16):
        if size < tracks.shape[1]:
            row(f"first {size}", texts[:, :size], tracks[:, :size])


if __name__ == "__main__":
    main()
