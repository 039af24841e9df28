// The player page: a room is watched by WHEP.
//
// The address may say `?room=` (then it begins at once) and `#token=`.
// Test hook: `window.tramline` has `pc`, `state`, `viewers`, `layers` (the last ones told), `isActive` and `restart()`,
// which looks for a way anew as after a change of network.

import { Broadcast, byId, copyTo, drawStatus, endpointFor, pageFor, settings } from './broadcast.js';
import { drawButton } from './lobby.js';
import { StatsView, bits } from './stats.js';

const EVENTS = ['active', 'inactive', 'layers', 'reconnect', 'viewercount'];
const AUTOMATIC = '';

const params = settings();
const video = byId('video');
const broadcast = new Broadcast({ open, opened });
const stats = new StatsView(byId('stats'), () => broadcast.pc && { pc: broadcast.pc, lines });
let lines = [];
let events = null;
let told = { isActive: false, viewers: 0, layers: {} };

window.tramline = {
  get pc() { return broadcast.pc; },
  get state() { return broadcast.state; },
  restart: () => broadcast.session.restart(),
  get isActive() { return told.isActive; },
  get viewers() { return told.viewers; },
  get layers() { return told.layers; },
};

byId('room').value = params.get('room') ?? 'stage';
byId('token').value = params.get('token') ?? '';
byId('watch-form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (byId('room').value.trim()) start();
});
byId('sound').addEventListener('click', () => {
  video.muted = !video.muted;
  video.play().catch(() => {});
});
byId('unmute').addEventListener('click', () => byId('sound').click());
video.addEventListener('volumechange', drawControls);
video.addEventListener('resize', draw);
byId('layer').addEventListener('change', choose);
byId('show-stats').addEventListener('click', () => {
  stats.toggle();
  byId('show-stats').classList.toggle('active', stats.open);
});
byId('stats-close').addEventListener('click', () => byId('show-stats').click());
byId('full').addEventListener('click', () => (document.fullscreenElement ? document.exitFullscreen() : byId('stage').requestFullscreen()));
byId('copy').addEventListener('click', ({ target }) => copyTo(target, pageFor('player.html', room())));
byId('leave').addEventListener('click', () => broadcast.stop());
broadcast.addEventListener('change', draw);

drawControls();
// Streams that never end would keep the page from having loaded.
if (document.readyState !== 'complete') await new Promise((resolve) => { addEventListener('load', resolve, { once: true }); });
if (params.get('room')) start();
else draw();

function room() {
  return byId('room').value.trim();
}

function start() {
  history.replaceState(null, '', pageFor('player.html', room()));
  document.title = `${room()} · Tramline`;
  byId('room-name').textContent = room();
  // The session waits for whoever publishes, so the viewer need not ask again and again.
  return broadcast.start(`${endpointFor('whep', room())}?wait=1`, byId('token').value.trim());
}

function open(pc) {
  const stream = new MediaStream();
  lines = ['audio', 'video'].map((kind) => {
    const transceiver = pc.addTransceiver(kind, { direction: 'recvonly' });
    stream.addTrack(transceiver.receiver.track);
    return { get mid() { return transceiver.mid; }, label: kind === 'audio' ? 'Sound' : 'Picture', direction: 'receive' };
  });
  video.srcObject = stream;
  video.play().catch(() => {
    // Browsers let pages begin in silence only.
    video.muted = true;
    video.play().catch(() => {});
  });
}

async function opened(session) {
  events?.close();
  told = { isActive: false, viewers: 0, layers: {} };
  const source = await session.events(EVENTS);
  events = source;
  const on = (name, handle) => source.addEventListener(name, ({ data }) => {
    if (events !== source) return;
    handle(JSON.parse(data));
    draw();
  });
  on('active', () => { told.isActive = true; });
  on('inactive', () => { told.isActive = false; });
  on('viewercount', ({ viewercount }) => { told.viewers = viewercount; });
  on('layers', (layers) => { told.layers = layers; });
  on('reconnect', ({ url }) => broadcast.reconnect(url));
}

async function choose() {
  const wish = byId('layer').value === AUTOMATIC ? {} : JSON.parse(byId('layer').value);
  try {
    await broadcast.session?.choose({ mediaId: picture()?.[0] ?? '1', ...wish });
    say('');
  } catch (error) {
    byId('layer').value = AUTOMATIC;
    say(error.message);
  }
}

/** The first picture's m-line with its layers. */
function picture() {
  return Object.entries(told.layers)[0];
}

function draw() {
  const isIdle = broadcast.state === 'idle';
  byId('door').hidden = !isIdle;
  byId('call').hidden = isIdle;
  byId('trouble').textContent = isIdle ? broadcast.text : '';
  byId('trouble').hidden = !byId('trouble').textContent;
  if (isIdle) {
    events?.close();
    if (stats.open) byId('show-stats').click();
    return;
  }
  const isWaiting = broadcast.state === 'live' && !told.isActive;
  drawStatus(isWaiting ? { text: 'Waiting for somebody to publish', tone: 'busy' } : broadcast);
  byId('viewers').textContent = told.viewers === 1 ? '1 viewer' : `${told.viewers} viewers`;
  byId('viewers').hidden = told.viewers === 0;
  byId('empty').hidden = told.isActive && video.videoWidth > 0;
  byId('empty').textContent = told.isActive ? 'The picture is on its way …' : 'Nobody publishes here yet. It begins by itself.';
  drawLayers();
}

/** One choice for each picture there is, the best first. */
function drawLayers() {
  const best = new Map(); // rid and spatial layer -> the dearest of its temporal layers
  for (const layer of picture()?.[1] ?? []) {
    const key = `${layer.rid ?? ''}/${layer.spatialLayerId ?? 0}`;
    if ((best.get(key)?.bitrate ?? -1) < layer.bitrate) best.set(key, layer);
  }
  const choices = [...best.values()].sort((a, b) => b.bitrate - a.bitrate);
  const spatial = choices.some(({ spatialLayerId }) => spatialLayerId > 0);
  const options = choices.length > 1 ? choices.map((layer) => {
    const size = layer.width ? `${layer.width} × ${layer.height}` : (layer.rid ?? `Layer ${layer.spatialLayerId}`);
    const wish = { ...(layer.rid && { rid: layer.rid }), ...(spatial && { spatialLayerId: layer.spatialLayerId }) };
    return [`${size} · ${bits(layer.bitrate)}`, JSON.stringify(wish)];
  }) : [];
  const select = byId('layer');
  const chosen = select.value;
  const all = [['Best for my line', AUTOMATIC], ...options];
  // What was chosen stays in the list while it is away.
  if (chosen && !all.some(([, value]) => value === chosen)) all.push([select.selectedOptions[0].text, chosen]);
  const isSame = all.length === select.options.length && all.every(([text, value], at) => select.options[at].text === text && select.options[at].value === value);
  // An open list must not change under the hand.
  if (isSame || document.activeElement === select) return;
  select.replaceChildren(...all.map(([text, value]) => new Option(text, value, false, value === chosen)));
}

function drawControls() {
  const isMuted = video.muted;
  drawButton(byId('sound'), isMuted ? 'i-sound-off' : 'i-sound', isMuted ? 'Turn sound on' : 'Turn sound off', 'Sound', isMuted);
  drawButton(byId('show-stats'), 'i-stats', 'Show connection details', 'Details');
  drawButton(byId('full'), 'i-full', 'Fill the screen', 'Full');
  drawButton(byId('leave'), 'i-leave', 'Stop watching', 'Leave');
  byId('unmute').hidden = !isMuted;
}

function say(text) {
  byId('notice').textContent = text;
  byId('notice').hidden = !text;
}
