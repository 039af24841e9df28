// Layers in a browser: whoever makes a tile larger or smaller gets another layer of the same picture, whole, without a
// freeze and without the past, in each codec that this browser encodes, and encrypted from end to end.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch, screenshot } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { enter, statistics } from './lib/pattern_call.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

/** Small, as two encoders and a decoder share two cores: browsers send two layers of it. */
const CAMERA = { width: 640, height: 360, fps: 15 };
/** Width of a tile, and of the picture in it. */
const SMALL = [160, 320];
const LARGE = [640, 640];
/** Who has come a moment ago is still being served from what is kept. */
const SETTLED_MS = 5000;
const WATCH_MS = 1000;
/** The largest error of coding; a picture built on another than it should be is off by half the range. */
const DAMAGE_MAX = 70;
/** Share of pictures that the encoder itself leaves blocks out of: seen without any server in between. */
const CARELESS_MAX = { 'video/VP9': 0.3 };
const CAREFUL_MAX = 0.03;
const STILL_MAX_MS = 1000;
/** Chromium calls a freeze what is three times the mean, and 150 ms more than it. Where its encoder pauses so long, it is that. */
const FREEZE_MS = 200;
/** A switch shows the past of so many pictures at most: those of a short run. */
const BACK_MAX = 8;

const WAYS = [
  { name: 'VP8', mimeType: 'video/VP8' },
  { name: 'VP8 encrypted', mimeType: 'video/VP8', encrypted: true },
  { name: 'H.264', mimeType: 'video/H264' },
  { name: 'H.264 encrypted', mimeType: 'video/H264', encrypted: true },
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
    const room = `layers in ${way.name}`;
    const ana = await enter(browser, server, { room, name: 'Ana', way, size: CAMERA, settings: { camera: '1', mic: '0' } });
    const encodes = await ana.evaluate((type) => RTCRtpSender.getCapabilities('video').codecs.some(({ mimeType }) => mimeType === type), way.mimeType);
    if (!encodes) return context.skip('this browser does not encode it');
    const bo = await enter(browser, server, { room, name: 'Bo', way, size: CAMERA, settings: { camera: '0', mic: '0' } });
    await see(bo, way, LARGE);
    await sleep(SETTLED_MS);
    await ana.evaluate(noteEncoded);
    const settled = await frozen(bo);
    const first = await bo.evaluate(() => window.pattern.seen.length);
    for (const size of [SMALL, LARGE, SMALL, LARGE]) await see(bo, way, size);
    if (way === WAYS[0]) await portray(bo);
    const end = await frozen(bo);
    const freezes = { count: end.freezeCount - settled.freezeCount, seconds: end.totalFreezesDuration - settled.totalFreezesDuration };
    const encoderStill = await ana.evaluate(() => window.encoded.longest);
    judge(way, await bo.evaluate((from) => window.pattern.seen.slice(from), first - 1), freezes, encoderStill);
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

async function frozen(page) {
  const [video] = await statistics(page, 'inbound-rtp', 'video');
  return video;
}

/** In the page: for how long no layer was encoded at most, once somebody watches; to some 50 ms. */
function noteEncoded() {
  window.encoded = { longest: 0 };
  let before = { frames: 0, at: performance.now() };
  const look = async () => {
    const stats = [...(await window.tramline.pc.getStats()).values()].filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video');
    const now = { frames: stats.reduce((sum, { framesEncoded }) => sum + framesEncoded, 0), at: performance.now() };
    if (now.frames !== before.frames) {
      window.encoded.longest = Math.max(window.encoded.longest, now.at - before.at);
      before = now;
    }
    setTimeout(look, 50);
  };
  look();
}

function judge({ name, mimeType }, seen, freezes, encoderStill) {
  const steps = seen.slice(1).map(({ at, number }, index) => ({ pause: at - seen[index].at, back: seen[index].number - number }));
  const still = Math.max(...steps.map(({ pause }) => pause));
  const back = Math.max(...steps.map((step) => step.back));
  const damaged = seen.filter(({ damage }) => damage > DAMAGE_MAX).length;
  const encoder = `; its encoder paused for ${Math.round(encoderStill)} ms`;
  console.log(`    ${name}: ${seen.length} pictures, ${damaged} damaged, ${steps.filter((step) => step.back > 0).length} backwards,`
    + ` longest pause ${Math.round(still)} ms, ${freezes.count} freezes of ${freezes.seconds.toFixed(3)} s${encoder}`);
  assert.ok(seen.length > 30, 'there is something to judge');
  assert.ok(still < STILL_MAX_MS, `the picture stood still for ${Math.round(still)} ms`);
  assert.ok(freezes.count === 0 || encoderStill >= FREEZE_MS, `${freezes.count} freezes${encoder}`);
  assert.ok(back <= BACK_MAX, `the picture went back by ${back}`);
  const share = damaged / seen.length;
  assert.ok(share <= (CARELESS_MAX[mimeType] ?? CAREFUL_MAX), `${damaged} of ${seen.length} pictures are damaged`);
}

async function portray(page) {
  await page.click('#show-stats');
  await eventually('the tile names the layer', () => page.evaluate(() => /layer \d/.test(document.querySelector('.tile .facts:not(:empty)')?.textContent)));
  await screenshot(page, 'layers');
}
