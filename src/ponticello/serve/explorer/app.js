// Starts the page: loads the library's description, reads the address, searches.

import { askSoon } from "./answer.js";
import { startDetails } from "./details.js";
import { startKeys } from "./keys.js";
import { startList } from "./list.js";
import { reloadMaps, startMaps } from "./maps.js";
import { fillFilters, startFilters } from "./filters.js";
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
  fillFilters();
  limitQuestion();
  if (isStarted) {
    reloadMaps();
  } else {
    startPlaylist();
    startPath();
    startPeople();
    startMaps();
    startDetails();
    isStarted = true;
    addEventListener("popstate", load);
  }
  load();
  askSoon();
}

startTabs();
startNotices();
startQuery();
startFilters();
startList();
startPlayer();
startKeys();
start();
