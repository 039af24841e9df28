// Who joins is served from what the server keeps since the last keyframe. Afterwards nothing tells: the picture is as
// late as after a keyframe made for it, and sound and picture belong together.
//
// ROUNDS=n for more joins of each kind than the test needs; the figures are in perf/results/joins.md.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { enter, statistics } from './lib/pattern_call.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 2);
/** So small that its bytes are no reason to ask for a keyframe. */
const CAMERA = { width: 320, height: 180, fps: 15 };
/** One stream without layers: each picture since the keyframe is part of what is kept. */
const WAY = { mimeType: 'video/VP8', scalabilityMode: 'L1T1' };
/** What is kept has more than the 100 pictures that are replayed at most. */
const STALE_MS = 7500;
const AFTER_MS = 2000;
const WATCH_MS = 1000;
const DELAY_DIFFERENCE_MAX_MS = 100;
/** After so long without a picture Chromium asks for a keyframe. */
const STUCK_MS = 2500;
/** People notice sound that is earlier than the picture by more (ITU-R BT.1359-1: 45 ms is detectable, 90 not acceptable);
 * the rest is for the clocks of a busy machine. */
const SYNC_MAX_MS = 150;

let server;
let browser;
let ana;
const joins = { cached: [], keyframe: [] };

before(async () => {
  server = await Server.start('joins');
  browser = await launch();
  ana = await enter(browser, server, { room: 'joins', name: 'Ana', way: WAY, size: CAMERA, settings: { camera: '1', mic: '1' } });
  // The page of who is alone in a room may stop sending.
  await enter(browser, server, { room: 'joins', name: 'Cy', way: WAY, size: CAMERA, settings: { camera: '0', mic: '0' } });
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('people join with a keyframe and without', async () => {
  await joined();
  for (let round = 0; round < ROUNDS; round += 1) {
    await sinceKeyframe(STALE_MS);
    await joined();
    // What is kept now has some seventy.
    await joined();
  }
  for (const [kind, all] of Object.entries(joins)) {
    console.log(`    ${kind}: ${all.map(({ first, delay, sync }) => `first ${first} ms, delay ${delay} ms, picture ${sync} ms after sound`).join('; ')}`);
  }
});

step('the picture is as late after the one as after the other', () => {
  assert.ok(joins.cached.length > 0 && joins.keyframe.length > 0, 'both kinds were seen');
  const [cached, keyframe] = [joins.cached, joins.keyframe].map((all) => median(all.map(({ delay }) => delay)));
  console.log(`    ${cached} ms after a cached join, ${keyframe} ms after one with a keyframe`);
  assert.ok(cached - keyframe <= DELAY_DIFFERENCE_MAX_MS, `${cached} ms and ${keyframe} ms`);
});

step('sound and picture belong together', () => {
  const apart = median(joins.cached.map(({ sync }) => Math.abs(sync)));
  assert.ok(apart <= SYNC_MAX_MS, `${apart} ms apart`);
});

step('nobody is shown what cannot be decoded', () => {
  const longest = Math.max(...Object.values(joins).flat().map(({ first }) => first));
  assert.ok(longest <= STUCK_MS, `${longest} ms to the first picture`);
});

/** Somebody joins, looks for a while and leaves; what was seen is kept by what the join took. */
async function joined() {
  const before = await keyframes();
  const bo = await enter(browser, server, { room: 'joins', name: 'Bo', way: WAY, size: CAMERA, settings: { camera: '0', mic: '0' } });
  const connected = await bo.evaluate(() => performance.timeOrigin + performance.now());
  await eventually('a video is there', () => bo.evaluate(() => Boolean(document.querySelector('video[aria-label="Video of Ana"]'))));
  await bo.evaluate(() => window.pattern.watch(document.querySelector('video[aria-label="Video of Ana"]')));
  await eventually('Bo sees', () => bo.evaluate(() => window.pattern.seen.length > 0));
  await sleep(AFTER_MS);
  const from = await bo.evaluate(() => window.pattern.seen.length);
  await sleep(WATCH_MS);
  const kind = (await keyframes()) > before ? 'keyframe' : 'cached';
  const sync = await eventually('clocks of both are known', () => difference(bo));
  const seen = await bo.evaluate(() => window.pattern.seen.map(({ number, at }) => ({ number, at: at + performance.timeOrigin })));
  const painted = await ana.evaluate(() => window.pattern.painted);
  const delay = median(seen.slice(from).map(({ number, at }) => at - painted[number]));
  joins[kind].push({ first: Math.round(seen[0].at - connected), delay: Math.round(delay), sync: sync.ms });
  await bo.close();
}

/** By how much the picture that is shown is older than the sound that is heard, as their senders' clocks say. */
async function difference(page) {
  const [[video], [audio]] = [await statistics(page, 'inbound-rtp', 'video'), await statistics(page, 'inbound-rtp', 'audio')];
  const [shown, heard] = [video?.estimatedPlayoutTimestamp, audio?.estimatedPlayoutTimestamp];
  // They are of different moments: both go on in between.
  return shown && heard && { ms: Math.round(heard - audio.timestamp - (shown - video.timestamp)) };
}

async function sinceKeyframe(ms) {
  let last = { count: await keyframes(), at: performance.now() };
  while (performance.now() - last.at < ms) {
    await sleep(200);
    const count = await keyframes();
    if (count !== last.count) last = { count, at: performance.now() };
  }
}

async function keyframes() {
  const [video] = await statistics(ana, 'outbound-rtp', 'video');
  return video?.keyFramesEncoded ?? 0;
}

function median(numbers) {
  return [...numbers].sort((one, other) => one - other)[Math.floor(numbers.length / 2)];
}
