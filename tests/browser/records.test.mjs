// A call of Chromium's is recorded, listed on the page, and plays there with sound and picture.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { launch, screenshot } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

const CALL_MS = 5000;

let server;
let browser;
let page;
const directory = mkdtempSync(join(tmpdir(), 'tramline-records-'));

before(async () => {
  server = await Server.start('records', { RECORD_ENABLED: '1', RECORD_WEBM: '1', RECORD_DIR: directory });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
  rmSync(directory, { recursive: true, force: true });
});

async function records() {
  return (await fetch(server.url('/api/records'))).json();
}

step('who is in a recorded room is recorded', async () => {
  const settings = new URLSearchParams({ room: 'standup', name: 'Ana', autojoin: '1' });
  const tab = await browser.open('Ana', server.url(`/#${settings}`));
  await eventually('sound and picture are written', async () => (await records()).length === 2);
  await sleep(CALL_MS);
  await tab.close();
  await eventually('a WebM of both', async () => (await records()).some(({ name }) => name.endsWith('.webm')));
});

step('the page lists what there is, the newest first', async () => {
  page = await browser.open('records', server.url('/web/records.html'));
  await eventually('three rows', () => page.evaluate(() => document.querySelectorAll('.record').length === 3));
  const rooms = await page.evaluate(() => [...document.querySelectorAll('.record-room')].map((it) => it.textContent));
  assert.deepEqual(rooms, ['standup', 'standup', 'standup']);
  await screenshot(page, 'records');
});

step('the WebM plays where it is', async () => {
  await page.click('button[aria-label$=".webm"]');
  const video = () => page.evaluate(() => {
    const { currentTime, duration, videoWidth } = document.querySelector('video');
    return { currentTime, duration, videoWidth };
  });
  await eventually('it moves', async () => (await video()).currentTime > 0.5);
  const { duration, videoWidth } = await video();
  assert.ok(duration > CALL_MS / 1000 - 1, `${duration} s`);
  assert.ok(videoWidth > 0);
  await eventually('it can be jumped in', async () => {
    await page.evaluate(() => { document.querySelector('video').currentTime = 3; });
    return (await video()).currentTime >= 3;
  });
  await screenshot(page, 'records-playing');
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.setViewportSize({ width: 390, height: 844 });
  await screenshot(page, 'records-phone');
});

step('the filter leaves what was asked for', async () => {
  await page.fill('#filter', '.ogg');
  assert.equal(await page.evaluate(() => document.querySelectorAll('.record').length), 1);
  await page.click('button[aria-label$=".ogg"]');
  await eventually('sound is heard', () => page.evaluate(() => document.querySelector('audio').currentTime > 0.5));
});
