// Layers in a browser: whoever makes a tile larger or smaller gets another layer of the same picture, whole and without a
// pause, in each codec that this browser encodes, and encrypted from end to end.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { launch, screenshot } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { here } from './lib/paths.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const PATTERN = readFileSync(join(here, 'clients/pattern.js'), 'utf8');
/** Small, as two encoders and a decoder share two cores: browsers send two layers of it. */
const CAMERA = { width: 640, height: 360, fps: 15 };
/** Width of a tile, and of the picture in it. */
const SMALL = [160, 320];
const LARGE = [640, 640];
const WATCH_MS = 1000;
/** The largest error of coding; a picture built on another than it should be is off by half the range. */
const DAMAGE_MAX = 70;
/** Share of pictures that the encoder itself leaves blocks out of: seen without any server in between. */
const CARELESS_MAX = { 'video/VP9': 0.3 };
const CAREFUL_MAX = 0.03;
const STILL_MAX_MS = 1000;

/** Without a mode the page asks for simulcast; with one there is one stream with layers in it. */
const WAYS = [
  { name: 'VP8', mimeType: 'video/VP8' },
  { name: 'VP8 encrypted', mimeType: 'video/VP8', encrypted: true },
  { name: 'H.264', mimeType: 'video/H264' },
  { name: 'VP9', mimeType: 'video/VP9' },
  { name: 'AV1', mimeType: 'video/AV1' },
  { name: 'AV1 SVC', mimeType: 'video/AV1', scalabilityMode: 'L2T3_KEY' },
];

let server;
let browser;

before(async () => {
  server = await Server.start('layers');
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

for (const way of WAYS) {
  step(`${way.name}: a tile gets the layer it needs`, async (context) => {
    const ana = await enter('Ana', way, { camera: '1', mic: '0' });
    const encodes = await ana.evaluate((type) => RTCRtpSender.getCapabilities('video').codecs.some(({ mimeType }) => mimeType === type), way.mimeType);
    if (!encodes) return context.skip('this browser does not encode it');
    const bo = await enter('Bo', way, { camera: '0', mic: '0' });
    for (const size of [SMALL, LARGE, SMALL, LARGE]) await see(bo, way, size);
    if (way === WAYS[0]) await portray(bo);
    judge(way, await bo.evaluate(() => window.pattern.seen));
    await ana.close();
    await bo.close();
    return undefined;
  });
}

/** Gives Ana's tile a size and looks at what comes. */
async function see(page, way, [tile, picture]) {
  await page.evaluate((width) => {
    const element = document.querySelector('.tile:has(video[aria-label="Video of Ana"])');
    Object.assign(element.style, { width: `${width}px`, height: `${(width * 9) / 16}px` });
    const video = element.querySelector('video');
    if (window.pattern.watched !== video) window.pattern.watch(video);
    window.pattern.watched = video;
  }, tile);
  await eventually(`${way.name}, ${picture} wide`, () => page.evaluate((width) => window.pattern.seen.at(-1)?.width === width, picture));
  await sleep(WATCH_MS);
}

function judge({ name, mimeType }, seen) {
  const still = Math.max(...seen.slice(1).map(({ at }, index) => at - seen[index].at));
  const damaged = seen.filter(({ damage }) => damage > DAMAGE_MAX).length;
  console.log(`    ${name}: ${seen.length} pictures, ${damaged} damaged, longest pause ${Math.round(still)} ms`);
  assert.ok(seen.length > 30, 'there is something to judge');
  assert.ok(still < STILL_MAX_MS, `the picture stood still for ${Math.round(still)} ms`);
  const share = damaged / seen.length;
  assert.ok(share <= (CARELESS_MAX[mimeType] ?? CAREFUL_MAX), `${damaged} of ${seen.length} pictures are damaged`);
}

async function portray(page) {
  await page.click('#show-stats');
  await eventually('the tile names the layer', () => page.evaluate(() => /layer \d/.test(document.querySelector('.tile .facts:not(:empty)')?.textContent)));
  await screenshot(page, 'layers');
}

async function enter(name, way, settings) {
  const address = new URLSearchParams({ room: `layers in ${way.name}`, name, autojoin: '1', ...settings });
  const page = await browser.open(name, 'about:blank');
  await page.addInitScript(PATTERN);
  await page.addInitScript(publishBy, { way, size: CAMERA });
  await page.goto(server.url(`/#${address}`));
  await eventually(`${name} is connected`, () => page.evaluate(() => window.tramline?.media === 'connected'));
  return page;
}

/** In the page: its camera is the pattern, published in one codec; both ways through a cipher where that is wanted. */
function publishBy({ way, size }) {
  const devices = window.MediaDevices?.prototype;
  if (!devices) return; // not at about:blank
  const { getUserMedia } = devices;
  devices.getUserMedia = async function of(constraints) {
    if (!constraints.video) return getUserMedia.call(this, constraints);
    return new MediaStream([window.pattern.camera(size)]);
  };

  const cipher = () => {
    onrtctransform = ({ transformer: { readable, writable } }) => {
      const transform = (frame, controller) => {
        frame.data = new Uint8Array(frame.data).map((byte) => byte ^ 0x5a).buffer;
        controller.enqueue(frame);
      };
      readable.pipeThrough(new TransformStream({ transform })).pipeTo(writable);
    };
  };
  const worker = way.encrypted ? new Worker(URL.createObjectURL(new Blob([`(${cipher})()`]))) : null;
  const encrypt = (end) => {
    if (worker) end.transform = new RTCRtpScriptTransform(worker);
  };

  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...settings) {
      super(...settings);
      this.addEventListener('track', ({ track, receiver }) => track.kind === 'video' && encrypt(receiver));
    }

    addTransceiver(source, init) {
      const { scalabilityMode } = way;
      const sendEncodings = scalabilityMode ? [{ scalabilityMode }] : init.sendEncodings;
      const line = super.addTransceiver(source, init.sendEncodings ? { ...init, sendEncodings } : init);
      if (!init.sendEncodings) return line;
      const { codecs } = RTCRtpSender.getCapabilities('video');
      const wanted = codecs.filter(({ mimeType }) => mimeType === way.mimeType || mimeType === 'video/rtx');
      if (wanted.some(({ mimeType }) => mimeType === way.mimeType)) line.setCodecPreferences(wanted);
      encrypt(line.sender);
      return line;
    }
  };
}
