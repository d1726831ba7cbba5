"""How the explorer bears a large library, in headless Chromium without a GPU: when it can be used,
and how it moves.

    python bench/explorer.py --work DIR

The maps are drawn before the page is opened, as they are kept by generation. Usable: the first
songs are listed and the maps are on the screen. Frames are counted by the page's own animation
clock while a mouse drags and turns its wheel over the maps. An answer's time is the request's, from
the page, each text asked for the first time.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from playwright.sync_api import Page, sync_playwright

from large_library import TEXTS, make_large_library, serving

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
OPENINGS, SEARCHES = 5, 60
MOVING_S = 5.0
COUNT_FRAMES = """() => {
  window.frameTimes = [];
  const tick = (now) => {
    window.frameTimes.push(now);
    window.ticking = requestAnimationFrame(tick);
  };
  window.ticking = requestAnimationFrame(tick);
}"""
STOP_COUNTING = "() => { cancelAnimationFrame(window.ticking); return window.frameTimes; }"
IS_USABLE = """() => document.querySelectorAll('#list > li').length > 0
  && /songs/.test(document.querySelector('#map-status').textContent)"""
ANSWERS = """() => performance.getEntriesByType('resource')
  .filter((entry) => entry.name.includes('/api/search'))
  .map((entry) => entry.duration)"""


def wait_for_maps(url: str) -> float:
    """Seconds until the service has drawn its maps."""
    started = time.monotonic()
    while True:
        with urlopen(f"{url}api/map") as answer:
            if json.load(answer)["ready"]:
                return time.monotonic() - started
        time.sleep(0.5)


def open_page(page: Page, url: str) -> float:
    """Seconds from asking for the page until it can be used."""
    started = time.monotonic()
    page.goto(url)
    page.wait_for_function(IS_USABLE)
    return time.monotonic() - started


def frames_while(page: Page, move: Any) -> dict[str, float]:
    """Frames a second while `move(step)` is called for some seconds, and the time that 95 % of
    frames stay below.
    """
    page.evaluate(COUNT_FRAMES)
    until, step = time.monotonic() + MOVING_S, 0
    while time.monotonic() < until:
        move(step)
        step += 1
    times = np.diff(page.evaluate(STOP_COUNTING))
    return {
        "frames_per_s": round(1000 / float(times.mean()), 1),
        "p95_frame_ms": round(float(np.percentile(times, 95)), 1),
    }


def pan_and_zoom(page: Page) -> dict[str, dict[str, float]]:
    """What a dragging and a turning mouse get to see."""
    box = page.locator("#overlay").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    pan = frames_while(
        page, lambda step: page.mouse.move(x + 60 * np.sin(step / 9), y + 40 * np.cos(step / 7))
    )
    page.mouse.up()
    zoom = frames_while(page, lambda step: page.mouse.wheel(0, -60 if step % 40 < 20 else 60))
    return {"pan": pan, "zoom": zoom}


def search(page: Page) -> dict[str, float]:
    """p50 and p95 in ms of searches by words, typed into the page."""
    for number in range(SEARCHES):
        page.fill("#words", f"{TEXTS[number % len(TEXTS)]} number {number}")
        before = page.evaluate(f"() => ({ANSWERS})().length")
        page.press("#words", "Enter")
        page.wait_for_function(f"() => ({ANSWERS})().length > {before}")
        page.wait_for_timeout(150)  # what a page does with an answer is not part of it
    seconds = page.evaluate(ANSWERS)
    return {f"p{q}_ms": round(float(np.percentile(seconds, q)), 1) for q in (50, 95)}


def measure(url: str) -> dict[str, Any]:
    """All of it, in a browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        openings = [open_page(page, url) for _ in range(OPENINGS)]
        result = {
            "usable_s": [round(each, 2) for each in openings],
            **pan_and_zoom(page),
            "search": search(page),
        }
        browser.close()
        return result


def main() -> None:
    """Serves, opens, moves, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="keeps the made-up library")
    parser.add_argument("--tracks", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = arguments.work / f"library-{arguments.tracks}"
    make_large_library(root, arguments.tracks)
    with serving(root) as (url, _):
        drawn_s = wait_for_maps(url)
        result = {"tracks": arguments.tracks, "maps_drawn_s": round(drawn_s, 1), **measure(url)}
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
