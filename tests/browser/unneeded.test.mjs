// A publisher with three encodings: what nobody needs is not sent, and is there again when somebody does.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch } from './lib/browser.mjs';
import { PATIENCE_MS, eventually, sleep } from './lib/eventually.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

/** The server waits 5 s before it believes that nobody needs a layer; a browser's estimate takes a while to rise to it before. */
const STOP_MS = 20_000;
const WATCH_MS = 2000;
/** From a larger tile to the larger picture in it: the wish, a keyframe of the layer that begins again, its decoding. */
const AGAIN_MS = 3000;

let server;
let browser;
let ana;
let bo;

before(async () => {
  server = await Server.start('unneeded');
  browser = await launch();
  ana = await enter('Ana', { camera: '1', mic: '0', width: '1280', height: '720', fps: '15' });
  bo = await enter('Bo', { camera: '0', mic: '0' });
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('a large tile: all three are sent', async () => {
  await show(1280);
  await eventually('the high layer is seen', async () => (await width()) === 1280, PATIENCE_MS + 10_000);
});

step('a small tile: what nobody needs stops', async () => {
  await show(160);
  await eventually('the publisher leaves the larger ones out', async () => (await sends()).join() === 'low', STOP_MS);
  await eventually('the small one is seen', async () => (await width()) === 320);
});

step('a tile of middle size: that one is sent, and not the next', async () => {
  const ms = await timeTo(640);
  console.log(`    the middle one after ${ms} ms`);
  await sleep(WATCH_MS);
  assert.equal((await sends()).join(), 'low,middle');
});

step('a large tile again: the high one is back', async () => {
  const ms = await timeTo(1280);
  console.log(`    the high one after ${ms} ms`);
  assert.ok(ms < AGAIN_MS, `${ms} ms`);
});

step('nobody looks: only the smallest is kept ready', async () => {
  await show(0);
  await eventually('the publisher sends the small one only', async () => (await sends()).join() === 'low', STOP_MS);
});

async function timeTo(size) {
  await show(size);
  const start = performance.now();
  while ((await width()) !== size) {
    assert.ok(performance.now() - start < PATIENCE_MS, `no picture ${size} wide`);
    await sleep(20);
  }
  return Math.round(performance.now() - start);
}

/** Gives Ana's tile a width; 0 hides it. */
function show(size) {
  return bo.evaluate((tile) => {
    const element = document.querySelector('.tile:has(video[aria-label="Video of Ana"])');
    Object.assign(element.style, { display: tile ? '' : 'none', width: `${tile}px`, height: `${(tile * 9) / 16}px` });
  }, size);
}

/** Of the picture that Bo sees now. */
function width() {
  return bo.evaluate(() => document.querySelector('video[aria-label="Video of Ana"]')?.videoWidth ?? 0);
}

/** The streams of which Ana sends pictures. */
async function sends() {
  const count = () => ana.evaluate(async () => {
    const stats = [...(await window.tramline.pc.getStats()).values()];
    return Object.fromEntries(stats.filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'video').map(({ rid, framesSent }) => [rid, framesSent]));
  });
  const before = await count();
  await sleep(1000);
  const now = await count();
  return ['low', 'middle', 'high'].filter((rid) => now[rid] > (before[rid] ?? 0));
}

async function enter(name, settings) {
  const address = new URLSearchParams({ room: 'unneeded', name, autojoin: '1', ...settings });
  const page = await browser.open(name, server.url(`/#${address}`));
  await eventually(`${name} is connected`, () => page.evaluate(() => window.tramline?.media === 'connected'));
  return page;
}
