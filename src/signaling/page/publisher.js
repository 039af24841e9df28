// The publisher page: a camera or a screen goes to a room by WHIP.
//
// The address may say `?room=`, `#token=`, `source=screen`, `simulcast=0` and `autostart=1`.
// Test hook: `window.tramline` has `pc`, `state`, `shareStream(stream)`, which stands in for a shared screen, and
// `restart()`, which looks for a way anew as after a change of network.

import { Broadcast, byId, copyTo, drawStatus, endpointFor, pageFor, settings } from './broadcast.js';
import { LocalMedia } from './devices.js';
import { StatsView } from './stats.js';

// Of a full picture; Chromium divides by these where it is large enough.
const LAYERS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 200_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 700_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 2_500_000 },
];
const ROOM = 'tramline.room';

const params = settings();
const media = new LocalMedia({});
let lines = [];
const broadcast = new Broadcast({ open });
const stats = new StatsView(byId('stats'), () => broadcast.pc && { pc: broadcast.pc, lines });

byId('room').value = params.get('room') ?? localStorage.getItem(ROOM) ?? 'stage';
byId('token').value = params.get('token') ?? '';
byId('simulcast').checked = params.get('simulcast') !== '0';
byId(params.get('source') === 'screen' ? 'from-screen' : 'from-camera').checked = true;

byId('publish-form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (broadcast.state === 'idle') start();
  else broadcast.stop();
});
byId('copy').addEventListener('click', ({ target }) => copyTo(target, pageFor('player.html', room())));
for (const id of ['from-camera', 'from-screen']) byId(id).addEventListener('change', switchSource);
for (const source of ['camera', 'microphone']) {
  byId(`${source}-choice`).addEventListener('change', ({ target }) => media.choose(source, target.value));
}
media.addEventListener('change', handleMedia);
media.addEventListener('trouble', ({ detail }) => say(detail));
broadcast.addEventListener('change', draw);

window.tramline = {
  get pc() { return broadcast.pc; },
  get state() { return broadcast.state; },
  restart: () => broadcast.session.restart(),
  shareStream(stream) {
    byId('from-screen').checked = true;
    media.useScreen(stream);
  },
};

draw();
if (byId('from-camera').checked) await media.open({ camera: true, microphone: true });
if (params.get('autostart') === '1') start();

function room() {
  return byId('room').value.trim();
}

function isScreen() {
  return byId('from-screen').checked;
}

async function switchSource() {
  say('');
  if (!isScreen()) return media.open({ camera: true, microphone: true });
  if (!media.screen && !(await media.startScreen())) byId('from-camera').checked = true;
  return handleMedia();
}

/** What is sent: the screen with its sound, if it has some, or camera and microphone. */
function tracks() {
  const [video, audio] = isScreen()
    ? [media.screen?.getVideoTracks()[0], media.screen?.getAudioTracks()[0] ?? media.microphone]
    : [media.camera, media.microphone];
  return { video: video ?? null, audio: audio ?? null };
}

function start() {
  const { video, audio } = tracks();
  if (!room()) return say('A room is needed.');
  if (!video && !audio) return say('There is nothing to send: choose a camera, a microphone or a screen first.');
  say('');
  localStorage.setItem(ROOM, room());
  history.replaceState(null, '', pageFor('publisher.html', room()));
  return broadcast.start(endpointFor('whip', room()), byId('token').value.trim());
}

function open(pc) {
  const { video, audio } = tracks();
  const stream = new MediaStream([audio, video].filter(Boolean));
  const add = (track, sendEncodings) => pc.addTransceiver(track, { direction: 'sendonly', streams: [stream], sendEncodings });
  const senders = [];
  if (audio) senders.push(['Sound', add(audio)]);
  if (video) senders.push(['Picture', add(video, byId('simulcast').checked ? LAYERS.map((layer) => ({ ...layer })) : [{ maxBitrate: 2_500_000 }])]);
  lines = senders.map(([label, transceiver]) => ({ get mid() { return transceiver.mid; }, label, direction: 'send', transceiver }));
}

/** Devices came, went or were changed: what is sent follows without a new session, where there is a line for it. */
function handleMedia() {
  if (isScreen() && !media.screen) byId('from-camera').checked = true;
  const sent = tracks();
  const video = byId('preview-video');
  if (video.srcObject?.getTracks()[0] !== sent.video) video.srcObject = sent.video ? new MediaStream([sent.video]) : null;
  byId('preview').classList.toggle('has-video', Boolean(sent.video));
  byId('preview').classList.toggle('unmirrored', isScreen());
  byId('preview-off').hidden = Boolean(sent.video);
  for (const { label, transceiver } of broadcast.pc ? lines : []) {
    const track = label === 'Picture' ? sent.video : sent.audio;
    if (transceiver.sender.track !== track) transceiver.sender.replaceTrack(track);
  }
  for (const source of ['camera', 'microphone']) fill(source);
}

async function fill(source) {
  const select = byId(`${source}-choice`);
  const devices = await media.list(source);
  const chosen = media.chosen(source);
  const options = devices.map(({ id, label }) => new Option(label, id, false, id === chosen));
  select.replaceChildren(...(options.length ? options : [new Option(`No ${source} found`, '')]));
  select.disabled = options.length === 0;
}

function draw() {
  const isIdle = broadcast.state === 'idle';
  drawStatus(broadcast);
  byId('status').hidden = isIdle;
  if (isIdle) say(broadcast.text);
  byId('publish').textContent = isIdle ? 'Go live' : 'Stop';
  byId('publish').classList.toggle('stop', !isIdle);
  for (const id of ['room', 'token', 'simulcast']) byId(id).disabled = !isIdle;
  byId('links').hidden = isIdle;
  byId('watch').href = pageFor('player.html', room());
  if (stats.open === isIdle) stats.toggle(!isIdle);
}

/** What is wrong; empty clears it. */
function say(text) {
  byId('trouble').textContent = text;
  byId('trouble').hidden = !text;
}
