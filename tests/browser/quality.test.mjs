// What the page says about each remote picture, and what it asks for: on a good network and on a bad one.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch, received, screenshot } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const WATCH_MS = 10_000;
const FREEZE_MAX_MS = 1000;
/** Chromium does not ask for sound again: what the network loses is made up, but nothing more is lost by the narrow line. */
const CONCEALED_MAX = 0.12;
/** Mean length of what is made up at once: a packet or two is no gap that anybody hears. */
const GAP_MAX_MS = 60;
const BUFFER_MAX_MS = 400;

let server;
let browser;
const tabs = {}; // name -> { page, id }

before(async () => {
  server = await Server.start('quality', { TRAMLINE_IMPAIRMENTS: 'true' });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

step('two people meet and the tile says what it shows', async () => {
  for (const name of ['Ana', 'Bo']) await enter(name);
  await eventually('Ana sees Bo', async () => (await picture('Ana')).frames > 0);
  await tabs.Ana.page.click('#show-stats');
  await eventually('the tile has size, rate, bitrate and loss', async () => {
    const facts = await tile('Ana', 'Bo', '.facts');
    return /\d+ × \d+ · \d+ fps · \d+ kbit\/s · 0\.0 % lost/.test(facts);
  });
  await eventually('the server says that all is well', async () => (await why('Bo', 'Ana')).state === 'flowing');
  assert.equal(await tile('Ana', 'Bo', '.reason'), '', 'nothing to explain');
  await screenshot(tabs.Ana.page, 'quality');
});

step('a tile that is not seen asks for nothing, and for its picture again when it is', async () => {
  const show = (display) => tabs.Ana.page.evaluate(([id, value]) => {
    document.querySelector(`[data-user="${id}"]`).style.display = value;
  }, [tabs.Bo.id, display]);
  await show('none');
  await eventually('the server knows that Bo is hidden', async () => (await why('Bo', 'Ana')).reason === 'hidden_by_request');
  await show('');
  await eventually('Bo is wanted again', async () => (await why('Bo', 'Ana')).reason !== 'hidden_by_request');
  const { frames } = await picture('Ana');
  await eventually('the picture moves', async () => (await picture('Ana')).frames > frames + 5);
});

step('a bad network made on purpose is seen on the tile', async () => {
  await impair('Ana', { down: { loss: 0.2 } });
  await eventually('loss is seen', async () => Number(/([\d.]+) % lost/.exec(await tile('Ana', 'Bo', '.facts'))?.[1]) > 2);
  await screenshot(tabs.Ana.page, 'quality-loss');
  await heal('Ana');
});

step('on 5 % loss and 300 kbit/s the call goes on: sound without gaps, picture without a freeze', async () => {
  await impair('Ana', { up: { loss: 0.05, delay_ms: 20 }, down: { loss: 0.05, delay_ms: 20, rate_kbps: 300 } });
  await sleep(2000);
  const start = await picture('Ana');
  const before = await sound('Ana');
  let longest = 0;
  let moved = { at: performance.now(), frames: start.frames };
  for (const end = performance.now() + WATCH_MS; performance.now() < end; await sleep(50)) {
    const { frames } = await picture('Ana');
    const now = performance.now();
    longest = Math.max(longest, now - moved.at);
    if (frames > moved.frames) moved = { at: now, frames };
  }
  const after = await sound('Ana');
  const since = (name) => after[name] - before[name];
  const concealed = (since('concealedSamples') - since('silentConcealedSamples')) / since('totalSamplesReceived');
  const gapMs = since('concealedSamples') / 48 / Math.max(1, since('concealmentEvents'));
  const bufferMs = (since('jitterBufferDelay') / since('jitterBufferEmittedCount')) * 1000;
  console.log(`    ${((moved.frames - start.frames) / (WATCH_MS / 1000)).toFixed(1)} frames per s, longest pause ${Math.round(longest)} ms;`
    + ` ${(concealed * 100).toFixed(1)} % of the sound made up, ${Math.round(gapMs)} ms each, ${Math.round(bufferMs)} ms buffered`);
  assert.ok(longest < FREEZE_MAX_MS, `the picture stood still for ${Math.round(longest)} ms`);
  assert.ok(concealed < CONCEALED_MAX, `${(concealed * 100).toFixed(1)} % of the sound is made up`);
  assert.ok(gapMs < GAP_MAX_MS, `gaps of ${Math.round(gapMs)} ms`);
  assert.ok(bufferMs < BUFFER_MAX_MS, `sound waits ${Math.round(bufferMs)} ms`);
  await screenshot(tabs.Ana.page, 'quality-narrow');
  await heal('Ana');
});

async function enter(name) {
  const settings = new URLSearchParams({ room: 'quality', name, autojoin: '1', width: '640', height: '360', fps: '15' });
  const page = await browser.open(name, server.url(`/#${settings}`));
  await eventually(`${name} is connected`, () => page.evaluate(() => window.tramline?.media === 'connected'));
  tabs[name] = { page, id: await page.evaluate(() => window.tramline.userId) };
}

/** What Ana or Bo decode of the other. */
async function picture(name) {
  const streams = [...(await received(tabs[name].page, 'tramline.pc')).values()];
  return streams.find(({ kind }) => kind === 'video') ?? { frames: 0 };
}

/** How what Ana or Bo hear of the other was put together. */
function sound(name) {
  return tabs[name].page.evaluate(async () => {
    const stats = [...(await window.tramline.pc.getStats()).values()];
    const found = stats.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio');
    const names = ['concealedSamples', 'concealmentEvents', 'silentConcealedSamples', 'totalSamplesReceived', 'jitterBufferDelay', 'jitterBufferEmittedCount'];
    return Object.fromEntries(names.map((one) => [one, found[one]]));
  });
}

function tile(name, other, part) {
  return tabs[name].page.evaluate(([id, selector]) => document.querySelector(`[data-user="${id}"] ${selector}`)?.textContent, [tabs[other].id, part]);
}

async function why(from, to) {
  const response = await fetch(server.url(`/debug/why?from=${tabs[from].id}&to=${tabs[to].id}`));
  assert.equal(response.status, 200);
  return (await response.json()).find(({ kind }) => kind === 'video') ?? {};
}

async function impair(name, network) {
  const response = await fetch(server.url(`/api/admin/impair/quality/${tabs[name].id}`), { method: 'PUT', body: JSON.stringify(network) });
  assert.equal(response.status, 200, await response.text());
}

async function heal(name) {
  const response = await fetch(server.url(`/api/admin/impair/quality/${tabs[name].id}`), { method: 'DELETE' });
  assert.equal(response.status, 200);
}
