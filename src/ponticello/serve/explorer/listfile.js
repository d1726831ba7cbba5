// Playlists written by the page itself, for the copy without a service. Paths are those of the library, if it tells them.

const oneLine = (text) => String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();

/** A cell of a CSV file; what a spreadsheet would run as a formula gets a ' in front. */
function cell(value) {
  const text = oneLine(value);
  const safe = /^[=+\-@]/.test(text) ? `'${text}` : text;
  return /[",]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const where = (track) => oneLine(track.more?.path ?? track.track_id);

const FORMATS = {
  m3u8: (title, tracks) =>
    ["#EXTM3U", `#PLAYLIST:${oneLine(title)}`].concat(
      tracks.flatMap((track) => [
        `#EXTINF:${Math.round(track.duration_s ?? -1)},${[track.artist, track.title ?? track.track_id].filter(Boolean).map(oneLine).join(" - ")}`,
        where(track).replace(/^#/, "./#"),
      ]),
    ).join("\n"),
  jspf: (title, tracks) =>
    JSON.stringify({
      playlist: {
        title,
        track: tracks.map((track) => ({
          title: track.title ?? track.track_id,
          ...(track.artist && { creator: track.artist }),
          ...(track.album && { album: track.album }),
          ...(track.duration_s && { duration: Math.round(track.duration_s * 1000) }),
          location: [encodeURI(where(track))],
          identifier: [`urn:ponticello:${encodeURIComponent(track.track_id)}`],
        })),
      },
    }, null, 1),
  csv: (title, tracks) =>
    ["track_id,title,artist,album,duration_s"]
      .concat(tracks.map((t) => [t.track_id, t.title, t.artist, t.album, t.duration_s].map(cell).join(",")))
      .join("\r\n"),
};

/** The list as a Blob. */
export const writeList = (format, title, tracks) => new Blob([`${FORMATS[format](title, tracks)}\n`], { type: "text/plain" });
