"""Files made to harm: none runs code, none writes outside, none fills the memory."""

import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ponticello.features.precomputed import read_vector_file
from tests.robustness.children import Child, Tell, command
from tests.robustness.rows import Outcome, Row, Trial, require
from tests.robustness.world import copy_library, generation_of, make_world

MEMORY = 3 << 30  # bytes of address space beyond what is held
MOST_S = 60.0


@dataclass(frozen=True)
class Ground:
    """Where an attack is: a finished library, a folder for hostile files, and a file that must
    never appear.
    """

    library: Path
    work: Path
    canary: Path


Attack = Callable[[Ground], Callable[[Tell], None]]  # what a user does then


class Touch:
    """A pickle that, loaded, makes the canary file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.canary}'",)


def _pth(suffix: str, at: Ground) -> Callable[[Tell], None]:
    path = at.work / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"a": Touch(at.canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Touch(at.canary)))
    return command("import-weights", path, at.work / "model")


def _pickled_model(at: Ground) -> Callable[[Tell], None]:
    run = at.library / "runs" / "semantic"
    (run / "model.safetensors").unlink()
    (run / "sha256.json").unlink()
    torch.save(Touch(at.canary), run / "pytorch_model.bin")
    return command("search", "slow", "-L", at.library)


def _remote_code(at: Ground) -> Callable[[Tell], None]:
    """The model folder asks for code of its own, as the hub's may, beside the real weights."""
    run = at.library / "runs" / "semantic"
    (run / "sha256.json").unlink()
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
        (run / name).write_text(
            f"open({str(at.canary)!r}, 'w')\nclass Evil: pass\n", encoding="utf-8"
        )
    for file, entry in (
        (
            "config.json",
            {"AutoModel": "modeling_evil.Evil", "AutoConfig": "configuration_evil.Evil"},
        ),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_evil.Evil", None]}),
    ):
        content = json.loads((run / file).read_text(encoding="utf-8"))
        (run / file).write_text(json.dumps({**content, "auto_map": entry}), encoding="utf-8")
    return command("embed", "-L", at.library)


def _objects(kind: str, at: Ground) -> Callable[[Tell], None]:
    """An array of Python objects, which NumPy would unpickle."""
    array = np.array([Touch(at.canary)], dtype=object)
    if kind == "npz":
        np.savez(at.work / "vectors.npz", ids=np.array(["a"]), vectors=array)
        return _readable(lambda: read_vector_file(at.work / "vectors.npz"))
    if kind == "shard":
        np.save(at.library / "mels" / "shard-00000.npy", array)
        shutil.rmtree(at.library / "runs" / "semantic" / "vectors")
        return command("embed", "-L", at.library)
    np.save(generation_of(at.library) / "vectors.npy", array)
    return command("search", "slow", "-L", at.library)


def _readable(function: Callable[[], object]) -> Callable[[Tell], None]:
    """A function whose errors the command line makes one line of."""

    def run(_: Tell) -> None:
        from ponticello.cli import main

        main.app = function  # type: ignore[assignment]
        main.main()

    return run


def _zip(
    library: Path, path: Path, members: dict[str | zipfile.ZipInfo, bytes]
) -> Callable[[Tell], None]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return command("import-history", path, "-L", library)


def _slip(at: Ground) -> Callable[[Tell], None]:
    link = zipfile.ZipInfo("link.json")
    link.external_attr = 0o120777 << 16
    climbing = "../" * 12 + str(at.canary).lstrip("/")
    members: dict[str | zipfile.ZipInfo, bytes] = {
        link: str(at.canary).encode(),
        "..\\..\\evil.json": b"[]",
    }
    for name in (climbing, f"{climbing}.json", str(at.canary), f"{at.canary}.csv"):
        members[name] = b"[]"
    return _zip(at.library, at.work / "slip.zip", members)


def _bomb(kind: str, at: Ground) -> Callable[[Tell], None]:
    zeros = bytes(400 << 20)
    if kind == "nested":
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("endsong_0.json", zeros)
        return _zip(
            at.library, at.work / "bomb.zip", {"inner.zip": inner.getvalue(), "endsong.json": b"[]"}
        )
    if kind == "many":
        return _zip(
            at.library, at.work / "bomb.zip", {f"{number}.json": b"" for number in range(100_100)}
        )
    return _zip(at.library, at.work / "bomb.zip", {"endsong_0.json": b'[{"ts": "' + zeros})


def _deep(name: str, at: Ground) -> Callable[[Tell], None]:
    """Brackets in brackets, on which a reader that calls itself runs out of stack."""
    deep = "[" * 100_000
    contents = {"ponticello.toml": f"x = {deep}", "history.jsonl": f'{{"listened_at": {deep}\n'}
    folders = {
        "ponticello.toml": at.library,
        "history.json": at.work,
        "history.jsonl": at.work,
        "index.json": generation_of(at.library),
    }
    path = folders.get(name, at.library / "runs" / "semantic") / name
    path.write_text(contents.get(name, deep), encoding="utf-8")
    if path.parent == at.work:
        return command("import-history", path, "-L", at.library)
    if name == "run.json":
        return command("train", "semantic", "-L", at.library)
    return command("search", "slow", "-L", at.library)


def _laughs(at: Ground) -> Callable[[Tell], None]:
    """A playlist whose entities are a billion characters, and one that asks for a file of the
    machine.
    """
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    entities = f'<!ENTITY a0 "lol">{entities}<!ENTITY f SYSTEM "file:///etc/passwd">'
    track = "<track><title>&a9;&f;</title></track>"
    (at.work / "list.xspf").write_text(
        f'<?xml version="1.0"?><!DOCTYPE p [{entities}]><playlist xmlns="http://xspf.org/ns/0/">'
        f"<trackList>{track}</trackList></playlist>",
        encoding="utf-8",
    )
    return command("import-history", at.work / "list.xspf", "-L", at.library)


DEEP = (
    "ponticello.toml",
    "history.json",
    "history.jsonl",
    "index.json",
    "run.json",
    "config.json",
    "sha256.json",
    "tokenizer_config.json",
)
ATTACKS: dict[str, Attack] = {
    "a .pth file with code": partial(_pth, ".pth"),
    "a pickle by another name": partial(_pth, ".bin"),
    "pickled weights in a model folder": _pickled_model,
    "a model folder with code": _remote_code,
    **{f"Python objects as {kind}": partial(_objects, kind) for kind in ("npz", "shard", "index")},
    "a zip that climbs out": _slip,
    **{f"a zip bomb, {kind}": partial(_bomb, kind) for kind in ("flat", "nested", "many")},
    **{f"a hundred thousand brackets in {name}": partial(_deep, name) for name in DEEP},
    "a billion laughs": _laughs,
}


def _limited(function: Callable[[Tell], None], tell: Tell) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    function(tell)


def hostile(trial: Trial) -> Outcome:
    """Every attack, in turn, on a copy of a finished library."""
    outcome = Outcome()
    start = make_world(trial.work, trial.seed, train=True)
    library = trial.work / "attacked"
    for number in range(trial.tries):
        name = list(ATTACKS)[number % len(ATTACKS)]
        work = trial.work / f"attack-{number}"
        work.mkdir()
        copy_library(start, library)
        canary = work / "canary"
        with outcome.counted(name):
            run = ATTACKS[name](Ground(library, work, canary))
            before = set(work.iterdir())
            ended = Child(partial(_limited, run)).wait(MOST_S)
            made = [path.name for path in work.iterdir() if path not in before]
            require(not canary.exists() and not made, f"it made {made}")
            require("Traceback" not in ended.said, ended.said[-500:])
            if ended.code != 0:
                ended.require_error_line()
    outcome.notes.append(f"{len(ATTACKS)} attacks: {', '.join(ATTACKS)}")
    return outcome


ROWS = [
    Row(
        "hostile-files",
        "Archives that climb out or explode, JSON, TOML and XML that nest or expand, arrays of "
        "objects, pickles and model folders with code: no code runs (a canary file), nothing is "
        "written outside, one readable line",
        len(ATTACKS),
        len(ATTACKS),
        hostile,
    )
]
