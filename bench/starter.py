"""Makes the starter model that ships with the package: the same bytes each time.

    python bench/starter.py PATH/TO/freemusic --work WORK_FOLDER

The recipe: `starter_recipe.py`. WORK_FOLDER keeps the prepared frames.
"""

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save

from freemusic import prepared, read_catalogue
from ponticello.model.starter import FILE
from starter_recipe import Heard, Reader, learn_starter, read_heard


def main() -> None:
    """Reads the tracks and writes the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds tracks.csv, auto_tags.csv and audio/")
    parser.add_argument(
        "--work", type=Path, required=True, help="where the prepared frames are kept"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    rows = read_catalogue(given.folder)
    base = prepared(given.work / "base", given.folder, 2)
    heard, read = read_heard(base, [row["track_id"] for row in rows]), Reader()
    make(read, heard)


def make(read: Reader, heard: Heard) -> None:
    """Writes the model that ships, from all tracks."""
    data = save(learn_starter(read, heard))
    FILE.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    print(f"{FILE.name}: {len(data):,} bytes, {len(heard.tags)} tracks, sha256 {sha256}")


if __name__ == "__main__":
    main()
