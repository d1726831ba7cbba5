"""Files that try to break whoever reads them: whole sounds, cut, flipped, lying, disguised. All
from a seed.
"""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

KINDS = {
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
ADDRESS = "http://127.0.0.1:9/stream"  # nobody may ask for it
PLAYLISTS = (
    f"#EXTM3U\n#EXTINF:-1,x\n{ADDRESS}\n",
    f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{ADDRESS}\n#EXT-X-ENDLIST\n",
    f"[playlist]\nFile1={ADDRESS}\nNumberOfEntries=1\n",
    f'<asx version="3.0"><entry><ref href="{ADDRESS}"/></entry></asx>',
    f'<?xml version="1.0"?><playlist xmlns="http://xspf.org/ns/0/"><track><location>{ADDRESS}</location></track></playlist>',
    f"ffconcat version 1.0\nfile {ADDRESS}\n",
    f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n{ADDRESS}\n",
    f"<html><body><audio src='{ADDRESS}'></audio></body></html>",
)
IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF", b"GIF89a", b"RIFF\x24\0\0\0WEBPVP8 ")


def sounds(seed: int, extra: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """A second of noise in every format that libsndfile writes, by suffix; `extra` beside them."""
    samples = np.random.default_rng(seed).normal(0, 0.1, (24_000, 2))
    written = {}
    for suffix, (container, subtype) in KINDS.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 48_000, format=container, subtype=subtype)
        written[suffix] = buffer.getvalue()
    return written | (extra or {})


def make_malformed(
    folder: Path, n_files: int, seed: int, extra: dict[str, bytes] | None = None
) -> list[Path]:
    """`n_files` malformed files in `folder`, and beside them pipes, loops of links and odd names;
    gives the files.
    """
    generator = np.random.default_rng(seed)
    whole = sounds(seed, extra)
    folder.mkdir(parents=True, exist_ok=True)
    ways: list[Callable[[bytes, np.random.Generator], bytes]] = [
        cut,
        flipped,
        lying,
        spliced,
        holed,
        tagged_badly,
    ]
    paths = []
    for number in range(n_files):
        suffix = sorted(whole)[number % len(whole)]
        if number % 10 == 9:
            text = PLAYLISTS[number // 10 % len(PLAYLISTS)].encode()
            image = IMAGES[number // 10 % len(IMAGES)] + generator.bytes(500)
            content = (text, image, text + generator.bytes(300))[number // 10 % 3]
        else:
            content = ways[int(generator.integers(len(ways)))](whole[suffix], generator)
        path = folder / f"{odd_name(number)}.{suffix}"
        path.write_bytes(content)
        paths.append(path)
    (folder / "loop").symlink_to(folder)
    (folder / "self.mp3").symlink_to("self.mp3")
    (folder / "to-nothing.flac").symlink_to("nothing.flac")
    os.mkfifo(folder / "pipe.mp3")
    (folder / "device.wav").symlink_to("/dev/zero")
    Path(os.fsdecode(os.fsencode(folder) + b"/latin-\xe9.mp3")).write_bytes(whole["mp3"])
    return paths


def odd_name(number: int) -> str:
    return (
        f"{number:05d}",
        f"{number:05d}\nnew line",
        f"-{number:05d} --library",
        f"{number:05d} 'quoted' \"twice\" $(id) ;|&",
        f"{number:05d} " + "x" * 200,
        f"{number:05d} \N{RIGHT-TO-LEFT OVERRIDE}cba "
        "e\N{COMBINING ACUTE ACCENT} \N{BLACK HEART SUIT}",
        f"{number:05d} \x1b[31mred\x07",
        f"{number:05d} ..%2f",
    )[number % 8]


def cut(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: int(generator.integers(len(content)))]


def flipped(content: bytes, generator: np.random.Generator) -> bytes:
    """Some bits turned over, half of the time in the first 200 bytes."""
    damaged = bytearray(content)
    end = min(200, len(damaged)) if generator.random() < 0.5 else len(damaged)
    for place in generator.integers(end, size=int(generator.integers(1, 40))):
        damaged[place] ^= 1 << int(generator.integers(8))
    return bytes(damaged)


def lying(content: bytes, generator: np.random.Generator) -> bytes:
    """A field of the header that says the largest, the smallest or any number."""
    damaged = bytearray(content)
    for _ in range(int(generator.integers(1, 4))):
        value = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, int(generator.integers(2**32))][
            int(generator.integers(5))
        ]
        place = int(generator.integers(0, min(120, len(damaged) - 4)))
        struct.pack_into(("<I", ">I")[int(generator.integers(2))], damaged, place, value)
    return bytes(damaged)


def spliced(content: bytes, generator: np.random.Generator) -> bytes:
    """The head of a sound and then noise, or its own head again and again."""
    head = content[: int(generator.integers(4, 2_000))]
    return head + generator.bytes(20_000) if generator.random() < 0.5 else head * 20


def holed(content: bytes, generator: np.random.Generator) -> bytes:
    start, end = sorted(generator.integers(len(content), size=2).tolist())
    return content[:start] + bytes(end - start) + content[end:]


def tagged_badly(content: bytes, generator: np.random.Generator) -> bytes:
    """An ID3 tag of random frames and sizes in front."""
    names = (b"TIT2", b"TXXX", b"COMM", b"APIC", b"USLT", b"TCON", b"UFID", generator.bytes(4))
    frames = b""
    for _ in range(int(generator.integers(1, 9))):
        body = generator.bytes(int(generator.integers(60)))
        size = len(body) if generator.random() < 0.6 else int(generator.integers(2**31))
        frames += (
            names[int(generator.integers(len(names)))]
            + struct.pack(">I", size)
            + generator.bytes(2)
            + body
        )
    size = len(frames) if generator.random() < 0.7 else int(generator.integers(2**28))
    field = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return (
        b"ID3"
        + bytes([int(generator.integers(2, 5)), 0, int(generator.integers(256))])
        + field
        + frames
        + content
    )
