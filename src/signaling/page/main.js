// The page: joins the door, the session, the tiles and the buttons together.
//
// Test hook: `window.tramline` has `pc` (the present RTCPeerConnection or null), `state` ('lobby', 'connecting',
// 'joined', 'away', 'ended'), `media` ('connecting', 'connected', 'interrupted'), `userId`,
// `peers` ([{ userId, name, sources, audioMuted, videoMuted }]) and `shareStream(stream)`, which publishes
// any stream as the screen.

import { LocalMedia } from './devices.js';
import { Grid } from './grid.js';
import { Lobby, drawButton, drawCamera, drawMicrophone, toggleCamera, toggleMicrophone } from './lobby.js';
import { Pictures } from './pictures.js';
import { readParams, shareLink } from './params.js';
import { SOURCES, Session } from './session.js';
import { Speaking } from './speaking.js';
import { StatsView } from './stats.js';

const NOTICE_MS = 9000;

const byId = (id) => document.getElementById(id);
const params = readParams(location);
const media = new LocalMedia(params);
const userId = await tabId();
let session = null;

const grid = new Grid(byId('stage'), byId('audio'), () => {
  notice('The browser holds the sound back.', 'bad', { label: 'Turn sound on', run: () => grid.unblock() });
});
const lobby = new Lobby(media, params, enter);
const stats = new StatsView(byId('stats'), statsSource);
const pictures = new Pictures(grid, picturesSource);
const speaking = new Speaking(remoteMicrophones, (marks, level) => {
  if (marks.delete('self')) marks.add(userId);
  grid.mark(marks, session?.speaker ?? null);
  lobby.level(level);
});

media.addEventListener('change', () => {
  speaking.follow(media.microphone);
  draw();
});
media.addEventListener('trouble', ({ detail }) => (session ? notice(detail, 'bad') : lobby.say(detail)));
document.addEventListener('pointerdown', () => speaking.resume());
wireButtons();
setInterval(drawStatus, 500);
exposeTestHook();

if (params.autojoin && params.room) {
  await media.open({ camera: params.camera, microphone: params.mic });
  enter({ room: params.room, name: params.name || 'Guest' });
  if (lobby.said) notice(lobby.said, 'bad');
} else {
  await lobby.open();
}

function enter({ room, name }) {
  const url = new URL('client', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = url.hash = '';
  const own = new Session(url, { roomId: room, userId, displayName: name, token: params.token || undefined }, media);
  session = own;
  own.addEventListener('change', draw);
  own.addEventListener('notice', ({ detail }) => notice(detail.text, detail.tone));
  own.addEventListener('ended', ({ detail }) => goBack(own, detail.text));
  history.replaceState(null, '', shareLink(location, room));
  document.title = `${room} · Tramline`;
  byId('room-name').textContent = room;
  lobby.close();
  byId('call').hidden = false;
  byId('stage').focus({ preventScroll: true });
  own.start();
  speaking.resume();
  draw();
}

function goBack(ended, text) {
  if (session !== ended) return;
  session = null;
  media.stop('screen');
  stats.toggle(false);
  byId('stage').classList.remove('telling');
  byId('device-dialog').close();
  grid.render([], []);
  byId('notices').replaceChildren();
  byId('call').hidden = true;
  document.title = 'Tramline';
  lobby.open(text);
}

function draw() {
  drawMicrophone(byId('mic'), media.microphone);
  drawCamera(byId('camera'), media.camera);
  const sharing = Boolean(media.screen);
  drawButton(byId('screen'), 'i-screen', sharing ? 'Stop sharing your screen' : 'Share your screen', sharing ? 'Stop' : 'Share');
  byId('screen').classList.toggle('active', sharing);
  if (!session) return;
  drawStatus();
  byId('stage').classList.toggle('dimmed', session.state === 'away');
  grid.render(tiles(), sounds());
  pictures.follow();
}

function drawStatus() {
  if (!session) return;
  const { text, tone, canRetry } = session.status;
  const alone = session.state === 'joined' && tone === 'good' && session.people.size === 0;
  const people = session.people.size + 1;
  const words = alone ? 'Connected. Nobody else is here yet' : tone === 'good' ? `Connected, ${people} people` : text;
  byId('status').dataset.tone = tone;
  // Readers hear a change once, not every second of a countdown.
  byId('status').setAttribute('aria-live', canRetry ? 'off' : 'polite');
  if (byId('status-text').textContent !== words) byId('status-text').textContent = words;
  byId('retry').hidden = !canRetry;
  byId('invite').hidden = !alone;
}

function tiles() {
  const { displayName } = session.who;
  const self = { id: userId, name: displayName, self: true };
  const people = [...session.people.values()].sort((a, b) => (a.userId < b.userId ? -1 : 1));
  const screens = people
    .filter(({ tracks }) => tracks.screen)
    .map((one) => ({ key: `${one.userId}/screen`, id: one.userId, name: one.name, screen: true, video: one.tracks.screen.track }));
  if (media.screen) screens.push({ ...self, key: 'self/screen', screen: true, video: media.screen.getVideoTracks()[0] });
  return [
    ...screens,
    { ...self, key: 'self', video: media.camera, muted: !media.microphone?.enabled },
    ...people.map((one) => ({
      key: one.userId,
      id: one.userId,
      name: one.name,
      video: one.videoMuted ? null : one.tracks.camera?.track,
      muted: one.audioMuted,
    })),
  ];
}

function sounds() {
  return [...session.people.values()].flatMap(({ userId: id, tracks }) =>
    ['microphone', 'screen-audio'].filter((source) => tracks[source]).map((source) => ({ key: `${id}/${source}`, track: tracks[source].track })));
}

function remoteMicrophones() {
  const people = session ? [...session.people.values()] : [];
  return people
    .filter(({ tracks, audioMuted }) => tracks.microphone && !audioMuted)
    .map(({ userId: id, tracks }) => ({ id, receiver: tracks.microphone.receiver, dominant: id === session.speaker }));
}

function picturesSource() {
  if (!session?.call) return null;
  const pictures = [...session.people.values()].flatMap(({ userId: id, tracks, videoMuted }) => [
    ...(tracks.camera && !videoMuted ? [{ key: id, ...tracks.camera }] : []),
    ...(tracks.screen ? [{ key: `${id}/screen`, ...tracks.screen }] : []),
  ]);
  return { call: session.call, quality: session.quality, demand: (wishes) => session.demand(wishes), pictures };
}

function statsSource() {
  const call = session?.call;
  if (!call) return null;
  const sending = call.sending.map(([source, line]) => ({ mid: line.mid, label: `Your ${SOURCES[source]}`, direction: 'send' }));
  const receiving = call.receiving.map(({ mid, userId: id, source }) => {
    const name = session.people.get(id)?.name ?? 'Somebody';
    return { mid, label: `${name}, ${SOURCES[source] ?? 'track'}`, direction: 'receive' };
  });
  return { pc: call.pc, lines: [...sending, ...receiving] };
}

function wireButtons() {
  byId('mic').addEventListener('click', () => toggleMicrophone(media));
  byId('camera').addEventListener('click', () => toggleCamera(media));
  byId('screen').addEventListener('click', () => (media.screen ? media.stop('screen') : media.startScreen()));
  byId('screen').hidden = !navigator.mediaDevices?.getDisplayMedia;
  byId('leave').addEventListener('click', () => session?.leave());
  byId('retry').addEventListener('click', () => session?.retryNow());
  for (const id of ['copy-link', 'invite']) byId(id).addEventListener('click', copyLink);
  byId('show-stats').addEventListener('click', () => showStats(!stats.open));
  byId('stats-close').addEventListener('click', () => showStats(false));
  byId('devices').addEventListener('click', () => {
    lobby.showDevices(byId('device-guest'));
    byId('device-dialog').showModal();
  });
  drawButton(byId('devices'), 'i-devices', 'Choose camera and microphone', 'Devices');
  drawButton(byId('show-stats'), 'i-stats', 'Show connection details', 'Details');
  drawButton(byId('copy-link'), 'i-link', 'Copy the link to this room', 'Link');
  drawButton(byId('leave'), 'i-leave', 'Leave the room', 'Leave');
}

function showStats(open) {
  stats.toggle(open);
  byId('stage').classList.toggle('telling', open);
  byId('show-stats').setAttribute('aria-expanded', String(open));
  byId('show-stats').classList.toggle('active', open);
  byId(open ? 'stats-close' : 'show-stats').focus();
}

async function copyLink() {
  const link = shareLink(location, session.who.roomId);
  try {
    await navigator.clipboard.writeText(link);
    notice('The link is copied. Whoever opens it meets you here.', 'quiet');
  } catch {
    notice(`Send this link: ${link}`, 'quiet');
  }
}

function notice(text, tone, action) {
  const element = Object.assign(document.createElement('div'), { className: `notice ${tone}` });
  element.append(Object.assign(document.createElement('p'), { textContent: text }));
  const button = Object.assign(document.createElement('button'), { type: 'button', className: 'plain', textContent: action?.label ?? 'OK' });
  button.addEventListener('click', () => {
    element.remove();
    action?.run();
  });
  element.append(button);
  // The same sentence twice is noise.
  for (const other of byId('notices').children) if (other.firstChild.textContent === text) other.remove();
  byId('notices').append(element);
  while (byId('notices').children.length > 3) byId('notices').firstChild.remove();
  if (!action) setTimeout(() => element.remove(), tone === 'quiet' ? NOTICE_MS / 2 : NOTICE_MS);
}

// One id for this tab, kept over a reload so that the new page takes the old one's place. A duplicated tab copies
// the storage; the lock tells it that the id is in use.
async function tabId() {
  const kept = sessionStorage.getItem('tramline.userId');
  if (kept && (await claim(kept))) return kept;
  const fresh = randomId();
  sessionStorage.setItem('tramline.userId', fresh);
  await claim(fresh);
  return fresh;
}

function claim(id) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    navigator.locks.request(`tramline.${id}`, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock ? new Promise(() => {}) : undefined; // held until the tab goes
    });
  });
}

// crypto.randomUUID is missing on pages without HTTPS.
function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

function exposeTestHook() {
  window.tramline = {
    userId,
    get pc() {
      return session?.call?.pc ?? null;
    },
    get state() {
      return session?.state ?? 'lobby';
    },
    get media() {
      return session?.mediaState ?? 'connecting';
    },
    get peers() {
      return [...(session?.people.values() ?? [])].map(({ tracks, ...rest }) => ({
        ...rest,
        sources: Object.fromEntries(Object.entries(tracks).map(([source, { track }]) => [source, track.id])),
      }));
    },
    shareStream: (stream) => media.useScreen(stream),
  };
}
