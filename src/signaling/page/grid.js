// The tiles: one for every person, a larger one for every shared screen; and the audio that belongs to them.
//
// `render` takes a plain list and changes only what differs, so a playing video is never touched needlessly.

const RATIO = 16 / 9;
const GAP = 12;

export class Grid {
  #stage;
  #screens = box('screens');
  #people = box('people');
  #audio;
  #tiles = new Map(); // key -> Tile
  #sounds = new Map(); // key -> <audio>
  #onBlocked;

  /** `onBlocked()`: the browser holds sound back until a click. */
  constructor(stage, audio, onBlocked) {
    this.#stage = stage;
    this.#audio = audio;
    this.#onBlocked = onBlocked;
    stage.append(this.#screens, this.#people);
    new ResizeObserver(() => this.#layout()).observe(stage);
  }

  /** `entries`: [{ key, id, name, self, screen, video, muted }]; `sounds`: [{ key, track }]. */
  render(entries, sounds) {
    keep(this.#tiles, entries, (entry) => new Tile(entry.screen));
    for (const entry of entries) this.#tiles.get(entry.key).show(entry);
    this.#place(this.#screens, entries.filter(({ screen }) => screen));
    this.#place(this.#people, entries.filter(({ screen }) => !screen));
    this.#play(sounds);
    this.#layout();
  }

  /** The tile with that key, if it is shown. */
  tile(key) {
    return this.#tiles.get(key);
  }

  /** Marks the tiles of those who speak. */
  mark(speaking) {
    for (const tile of this.#tiles.values()) tile.mark(speaking.has(tile.id));
  }

  /** Tries to play all sound again; call from a click. */
  unblock() {
    for (const sound of this.#sounds.values()) sound.play().catch(() => {});
  }

  // A tile that stands right is not moved: moving a video interrupts it.
  #place(parent, entries) {
    entries.forEach(({ key }, index) => {
      const { element } = this.#tiles.get(key);
      if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
    });
  }

  #play(sounds) {
    keep(this.#sounds, sounds, () => Object.assign(document.createElement('audio'), { autoplay: true }));
    for (const { key, track } of sounds) {
      const element = this.#sounds.get(key);
      if (element.parentNode !== this.#audio) this.#audio.append(element);
      if (!attach(element, track)) continue;
      element.play().catch((error) => error.name === 'NotAllowedError' && this.#onBlocked());
    }
  }

  #layout() {
    const screens = this.#screens.children.length;
    this.#stage.classList.toggle('with-screen', screens > 0);
    const { clientWidth, clientHeight } = this.#stage;
    const width = best(this.#people.children.length, clientWidth, clientHeight);
    this.#people.style.setProperty('--tile', screens > 0 ? '100%' : `${width}px`);
  }
}

class Tile {
  #video = document.createElement('video');
  #avatar = document.createElement('span');
  #name = document.createElement('span');
  #muted = icon('i-mic-off');
  #facts = document.createElement('span');
  #reason = document.createElement('span');
  #brief = document.createElement('span');
  #quality = document.createElement('p');

  constructor(screen) {
    this.screen = screen;
    this.element = document.createElement('figure');
    this.element.className = screen ? 'tile screen' : 'tile';
    Object.assign(this.#video, { autoplay: true, muted: true, playsInline: true });
    this.#avatar.className = 'avatar';
    this.#avatar.setAttribute('aria-hidden', 'true');
    const caption = document.createElement('figcaption');
    this.#muted.setAttribute('role', 'img');
    this.#muted.setAttribute('aria-label', 'microphone off');
    caption.append(this.#muted, this.#name);
    this.#quality.className = 'quality';
    this.#facts.className = 'facts';
    this.#reason.className = 'reason';
    this.#brief.className = 'brief';
    this.#quality.append(this.#facts, this.#reason, this.#brief);
    this.element.append(this.#avatar, this.#video, this.#quality, caption);
    // A line without packets yet has a black picture: show the initials until the first frame is there.
    for (const event of ['playing', 'resize', 'emptied']) this.#video.addEventListener(event, () => this.#reveal());
  }

  show({ id, name, self, screen, video, muted }) {
    this.id = screen ? null : id;
    const owner = self ? `${name} (you)` : name;
    const label = screen ? `${self ? 'Your' : `${name}’s`} screen` : owner;
    if (this.#name.textContent !== label) {
      this.#name.textContent = label;
      this.#video.setAttribute('aria-label', screen ? label : `Video of ${owner}`);
      this.#avatar.textContent = initials(name);
      this.#avatar.style.setProperty('--hue', hue(id));
    }
    this.#muted.classList.toggle('gone', !muted);
    this.element.classList.toggle('mirrored', Boolean(self && !screen));
    this.element.dataset.user = id;
    attach(this.#video, video);
    if (video) this.#video.play().catch(() => {});
    else this.tell({});
    this.#reveal();
  }

  /** What the picture is and why it is not better, for who asks; and in `brief` for everybody. */
  tell({ facts = '', reason = '', brief = '' }) {
    const parts = [[this.#facts, facts], [this.#reason, reason], [this.#brief, brief]];
    for (const [part, text] of parts) if (part.textContent !== text) part.textContent = text;
    this.#quality.classList.toggle('notable', brief !== '');
  }

  mark(speaking) {
    this.element.classList.toggle('speaking', speaking);
  }

  #reveal() {
    this.element.classList.toggle('has-video', Boolean(this.#video.srcObject) && this.#video.videoWidth > 2);
  }
}

/** The widest 16:9 tile with which `count` of them fit. */
export function best(count, width, height) {
  let widest = 0;
  for (let columns = 1; columns <= Math.max(1, count); columns += 1) {
    const rows = Math.ceil(count / columns);
    const byWidth = (width - GAP * (columns - 1)) / columns;
    const byHeight = ((height - GAP * (rows - 1)) / rows) * RATIO;
    widest = Math.max(widest, Math.floor(Math.min(byWidth, byHeight)));
  }
  return widest;
}

/** An icon from the sprite. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#${name}`);
  svg.append(use);
  return svg;
}

function box(className) {
  return Object.assign(document.createElement('div'), { className });
}

// Makes the map hold exactly the keys of the list.
function keep(map, list, create) {
  const wanted = new Set(list.map(({ key }) => key));
  for (const [key, value] of map) {
    if (wanted.has(key)) continue;
    const element = value.element ?? value;
    attach(element.querySelector?.('video') ?? element, null);
    element.remove();
    map.delete(key);
  }
  for (const entry of list) if (!map.has(entry.key)) map.set(entry.key, create(entry));
}

// Shows a track in a media element; true if that is new.
function attach(element, track) {
  const current = element.srcObject?.getTracks()[0] ?? null;
  if (current === (track ?? null)) return false;
  element.srcObject = track ? new MediaStream([track]) : null;
  return Boolean(track);
}

function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0]).join('').toUpperCase() || '?';
}

// A colour of one's own, the same in every window.
function hue(id) {
  let hash = 0;
  for (const letter of id) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  return hash;
}
