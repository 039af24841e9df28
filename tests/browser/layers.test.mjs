// Layers in a browser: whoever makes a tile larger or smaller gets another layer of the same picture, whole and without a
// pause, in each codec that this browser encodes.

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
const CAMERA = { width: 640, height: 360, fps: 15 };
/** What a tile of that size gets: [width of the tile, width of the picture]. */
const SMALL = [160, 320];
const LARGE = [640, 640];
/** The largest error of coding; a picture built on another than it should be is off by half the range. */
const DAMAGE_MAX = 60;
const STILL_MAX_MS = 1000;

/** How the browser is asked for layers: `rids` as the page does it, `modes` with a scalability mode for each. */
const WAYS = [
  { name: 'VP8', mimeType: 'video/VP8' },
  { name: 'H264', mimeType: 'video/H264' },
  
  { name: 'VP9', mimeType: 'video/VP9' },
  { name: 'VP9-SVC', mimeType: 'video/VP9', scalabilityMode: 'L3T3_KEY', single: true },
  
  { name: 'AV1', mimeType: 'video/AV1' },
  { name: 'AV1-SVC', mimeType: 'video/AV1', scalabilityMode: 'L3T3_KEY', single: true },
].filter(({ name }) => !process.env.ONLY || process.env.ONLY.split(',').includes(name));

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
  step(`${way.name}: a tile gets the layer it needs`, async () => {
    const ana = await enter('Ana', way, { camera: '1', mic: '0' });
    const bo = await enter('Bo', way, { camera: '0', mic: '0' });
    try {
      await see(bo, way, way.small ?? SMALL);
      await see(bo, way, LARGE);
      await see(bo, way, way.small ?? SMALL);
      await see(bo, way, LARGE);
      if (way.name === 'VP8') {
        await bo.click('#show-stats');
        await sleep(1500);
        await screenshot(bo, 'layers');
      }
      const all = await bo.evaluate(() => window.pattern.seen);
      report(way, all, await inbound(bo), await outbound(ana));
    } catch (error) {
      for (const view of ['why', 'tracks', 'peers']) console.log(view, await (await fetch(server.url(`/debug/${view}`))).text());
      console.log(JSON.stringify([await inbound(bo), await outbound(ana), await bo.evaluate(() => window.pattern.seen.slice(-3))]));
      console.log(error);
    } finally {
      await ana.close();
      await bo.close();
    }
  });
}

async function see(page, way, [tile, picture]) {
  await page.evaluate((width) => {
    const element = document.querySelector('.tile:has(video[aria-label="Video of Ana"])');
    element.style.width = `${width}px`;
    element.style.height = `${(width * 9) / 16}px`;
    if (!window.pattern.watched) window.pattern.watch(element.querySelector('video'));
    window.pattern.watched = true;
  }, tile);
  await eventually(`${way.name} in ${picture}`, () => page.evaluate((width) => window.pattern.seen.at(-1)?.width === width, picture));
  await sleep(1000);
}

function report(way, seen, stat, sent) {
  let still = 0;
  let back = 0;
  for (let at = 1; at < seen.length; at += 1) {
    still = Math.max(still, seen[at].at - seen[at - 1].at);
    if (seen[at].number < seen[at - 1].number) {
      back += 1;
      console.log('    back', JSON.stringify(seen.slice(at - 2, at + 3)));
    }
  }
  const damaged = seen.filter(({ damage }) => damage > DAMAGE_MAX);
  console.log(`    ${way.name}: ${seen.length} pictures, longest pause ${Math.round(still)} ms, ${back} back, damage ${Math.max(...seen.map((one) => one.damage))}`,
    damaged.length, JSON.stringify(damaged.slice(0, 6)), JSON.stringify(stat), JSON.stringify(sent));
}

async function inbound(page) {
  return page.evaluate(async () => {
    const stat = [...(await window.tramline.pc.getStats()).values()].find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
    const { framesDecoded, framesDropped, freezeCount, keyFramesDecoded, pliCount, nackCount, packetsLost, decoderImplementation } = stat;
    return { framesDecoded, framesDropped, freezeCount, keyFramesDecoded, pliCount, nackCount, packetsLost, decoderImplementation };
  });
}

async function outbound(page) {
  return page.evaluate(async () => [...(await window.tramline.pc.getStats()).values()].filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video')
    .map(({ rid, frameWidth, framesSent, keyFramesEncoded, pliCount, scalabilityMode, encoderImplementation, active }) =>
      ({ rid, frameWidth, framesSent, keyFramesEncoded, pliCount, scalabilityMode, encoderImplementation, active })));
}

async function enter(name, way, settings) {
  const address = new URLSearchParams({ room: `layers-${way.name}`, name, autojoin: '1', ...settings });
  const page = await browser.open(name, 'about:blank');
  if (process.env.PAGE) await page.route('**/page/*.js', (route) => route.fulfill({ path: join(process.env.PAGE, route.request().url().split('/').pop()) })); // DEV
  await page.addInitScript(PATTERN);
  await page.addInitScript(publishBy, { way, size: CAMERA });
  await page.goto(server.url(`/#${address}`));
  await eventually(`${name} is connected`, () => page.evaluate(() => window.tramline?.media === 'connected'));
  return page;
}

/** In the page: its camera is the pattern, and it is published in one codec. */
function publishBy({ way, size }) {
  const devices = window.MediaDevices?.prototype;
  if (!devices) return;
  const { getUserMedia } = devices;
  devices.getUserMedia = async function of(constraints) {
    if (!constraints.video) return getUserMedia.call(this, constraints);
    return new MediaStream([window.pattern.camera(size)]);
  };
  const connection = RTCPeerConnection.prototype;
  const { addTransceiver } = connection;
  connection.addTransceiver = function add(source, init) {
    if (init.sendEncodings && way.scalabilityMode) {
      const { scalabilityMode } = way;
      init.sendEncodings = way.single ? [{ scalabilityMode }] : init.sendEncodings.map((encoding) => ({ ...encoding, scalabilityMode }));
    }
    const line = addTransceiver.call(this, source, init);
    if (init.sendEncodings) {
      const { codecs } = RTCRtpSender.getCapabilities('video');
      line.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType === way.mimeType || mimeType === 'video/rtx'));
    }
    return line;
  };
}
