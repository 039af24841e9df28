// The list of recordings: what there is, how large, from when; a player where the browser has one, and the file.

const list = document.getElementById("list");
const filter = document.getElementById("filter");
const summary = document.getElementById("summary");
const notice = document.getElementById("notice");

// By ending: what it is called, and what plays it. IVF and H.264 files no browser plays by itself.
const KINDS = {
  webm: { word: "WebM", player: "video", type: "video/webm" },
  ogg: { word: "Sound", player: "audio", type: "audio/ogg" },
  ivf: { word: "Picture" },
  h264: { word: "Picture" },
};

/** Where rooms are closed, `#token=` of this page opens recordings. */
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const mine = (url) => (token ? `${url}?token=${encodeURIComponent(token)}` : url);

let records = [];

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) {
    bytes /= 1000;
    step += 1;
  }
  return `${step === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[step]}`;
}

// {room}_{track}_{unixSeconds}.{ending}; rooms may have underscores, tracks have none.
function parts(name) {
  const found = /^(.*)_([^_]*)_(\d+)\.(\w+)$/.exec(name);
  if (!found) return { room: name, track: "", began: null, ending: name.split(".").pop() };
  return { room: found[1], track: found[2], began: new Date(Number(found[3]) * 1000), ending: found[4] };
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function canPlay(kind) {
  return Boolean(kind?.player && document.createElement(kind.player).canPlayType(kind.type));
}

function row(record) {
  const { room, track, began, ending } = parts(record.name);
  const kind = KINDS[ending];
  const plays = canPlay(kind);
  const item = element("li", "record");
  const line = element("div", "record-row");
  const badge = element("span", "record-kind", kind?.word ?? ending);
  badge.dataset.plays = plays;
  const words = element("div", "record-words");
  words.append(element("p", "record-room", room));
  const when = (began ?? new Date(record.modTime)).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const facts = element("p", "record-facts", [when, size(record.size), track].filter(Boolean).join(" · "));
  facts.title = record.name;
  words.append(facts);
  const actions = element("div", "record-actions");
  if (plays) {
    const play = element("button", "plain", "Play");
    play.type = "button";
    play.setAttribute("aria-expanded", "false");
    play.setAttribute("aria-label", `Play ${record.name}`);
    play.addEventListener("click", () => toggle(item, play, record, kind));
    actions.append(play);
  }
  const save = element("a", "plain", "Download");
  save.href = mine(`..${record.url}`);
  save.download = record.name;
  save.setAttribute("aria-label", `Download ${record.name}`);
  actions.append(save);
  line.append(badge, words, actions);
  item.append(line);
  return item;
}

function toggle(item, button, record, kind) {
  const there = item.querySelector("audio, video");
  if (there) {
    there.remove();
    button.textContent = "Play";
  } else {
    const player = element(kind.player);
    player.controls = true;
    player.autoplay = true;
    player.src = mine(`..${record.url}`);
    item.append(player);
    button.textContent = "Close";
  }
  button.setAttribute("aria-expanded", String(!there));
}

function show() {
  const wanted = filter.value.trim().toLowerCase();
  const shown = records.filter((record) => record.name.toLowerCase().includes(wanted));
  list.replaceChildren(...shown.map(row));
  const bytes = shown.reduce((sum, record) => sum + record.size, 0);
  if (records.length === 0) summary.textContent = "Nothing has been recorded yet.";
  else if (shown.length === 0) summary.textContent = "No recording has that in its name.";
  else summary.textContent = `${shown.length} ${shown.length === 1 ? "file" : "files"}, ${size(bytes)}`;
}

async function load() {
  try {
    const answer = await fetch(mine("../api/records"));
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    records = await answer.json();
    notice.hidden = true;
    show();
  } catch (error) {
    notice.textContent = `The list did not come: ${error.message}. Look again in a moment.`;
    notice.hidden = false;
    summary.textContent = "";
  }
}

document.getElementById("tools").addEventListener("submit", (event) => {
  event.preventDefault();
  load();
});
filter.addEventListener("input", show);
load();
