// Starts the page: meet the library, read the address, ask.

import { askSoon } from "./answer.js";
import { startChosen } from "./chosen.js";
import { startKeys } from "./keys.js";
import { startList } from "./list.js";
import { reloadMaps, startMaps } from "./maps.js";
import { fillNarrowing, startNarrowing } from "./narrowing.js";
import { failed, meetLibrary, startNotices } from "./notices.js";
import { startPath } from "./path.js";
import { startPeople } from "./people.js";
import { startPlayer } from "./player.js";
import { startPlaylist } from "./playlist.js";
import { limitQuestion, startQuery } from "./query.js";
import { load } from "./state.js";
import { startTabs } from "./tabs.js";

let isStarted = false;

async function start() {
  try {
    await meetLibrary();
  } catch (error) {
    failed(error, start);
    return;
  }
  fillNarrowing();
  limitQuestion();
  if (isStarted) {
    reloadMaps();
  } else {
    startPlaylist();
    startPath();
    startPeople();
    startMaps();
    startChosen();
    isStarted = true;
    addEventListener("popstate", load);
  }
  load();
  askSoon();
}

startTabs();
startNotices();
startQuery();
startNarrowing();
startList();
startPlayer();
startKeys();
start();
