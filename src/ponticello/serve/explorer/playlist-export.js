// Writes playlists in the browser, for static exports: the service's fields without file paths.

/** One line, without what could steer a program that shows it. */
const oneLine = (text) =>
  String(text ?? "")
    .replace(/\s+/gu, " ")
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}]/gu, "")
    .trim();

/** A cell of a CSV file; what a spreadsheet would run as a formula gets a ' in front. */
function cell(value) {
  const text = oneLine(value);
  const safe = /^[=+\-@]/.test(text) ? `'${text}` : text;
  return /[",]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const COLUMNS = ["track_id", "title", "artist", "album", "genres", "tags", "machine_tags", "duration_s"];

function asCsv(title, tracks) {
  const fields = (track) =>
    COLUMNS.map((name) => (Array.isArray(track[name]) ? track[name].join("; ") : track[name])).map(cell);
  return [["position", ...COLUMNS], ...tracks.map((track, at) => [at + 1, ...fields(track)])]
    .map((line) => line.join(","))
    .join("\r\n");
}

function asJspf(title, tracks) {
  const entries = tracks.map((track) => ({
    title: oneLine(track.title ?? track.track_id),
    ...(track.artist && { creator: oneLine(track.artist) }),
    ...(track.album && { album: oneLine(track.album) }),
    ...(track.duration_s !== null && { duration: Math.round(track.duration_s * 1000) }),
  }));
  return JSON.stringify({ playlist: { title: oneLine(title), track: entries } }, null, 1);
}

const FORMATS = { csv: [asCsv, "text/csv", "\r\n"], jspf: [asJspf, "application/jspf+json", "\n"] };

/** The list as a Blob. */
export function exportPlaylist(format, title, tracks) {
  const [write, type, end] = FORMATS[format];
  return new Blob([write(title, tracks) + end], { type });
}
