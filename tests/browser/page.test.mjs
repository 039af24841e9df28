// The page where things are not as usual: no pointer, no camera, no permission.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, screenshot } from './lib/browser.mjs';
import { eventually } from './lib/eventually.mjs';
import { Server } from './lib/server.mjs';

let server;

before(async () => {
  server = await Server.start('page');
});

after(() => server?.kill());

async function withPage(options, body) {
  const browser = await launch(options);
  try {
    await body(await browser.open('page', server.url('/')));
  } finally {
    await browser.close();
  }
}

const state = (page) => page.evaluate(() => window.tramline?.state);
const focused = (page) => page.evaluate(() => document.activeElement?.id);

/** Tabs on until the element has the focus, as a person without a pointer does. */
async function tabTo(page, id) {
  for (let presses = 0; presses < 40; presses += 1) {
    if ((await focused(page)) === id) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`#${id} is not reached by Tab`);
}

async function joinByKeyboard(page) {
  await tabTo(page, 'name');
  await page.keyboard.type('Ana');
  await tabTo(page, 'room');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('keys');
  await page.keyboard.press('Enter');
  await eventually('Ana is in the room', async () => (await state(page)) === 'joined');
}

test('the keyboard alone joins, mutes, looks at the numbers and leaves', () => withPage({}, async (page) => {
  await joinByKeyboard(page);
  const label = () => page.getAttribute('#mic', 'aria-label').then(async (text) => text ?? page.textContent('#mic'));
  const before = await label();
  await tabTo(page, 'mic');
  // The ring is drawn around the button or around the disc inside it.
  const outline = await page.evaluate(() => {
    const button = document.activeElement;
    return [button, ...button.querySelectorAll('*')].some((part) => getComputedStyle(part).outlineStyle !== 'none');
  });
  assert.ok(outline, 'the focus is seen');
  await page.keyboard.press('Space');
  await eventually('the microphone button says something else', async () => (await label()) !== before);
  await tabTo(page, 'show-stats');
  await page.keyboard.press('Enter');
  await eventually('the numbers are shown', () => page.isVisible('#stats'));
  await tabTo(page, 'leave');
  await page.keyboard.press('Enter');
  await eventually('the lobby is back', () => page.isVisible('#lobby'));
}));

for (const [what, flag, word] of [
  ['without a camera', '--use-fake-device-for-media-stream', /found|no camera|no microphone/i],
  ['with permission refused', '--use-fake-ui-for-media-stream', /refus|permission|allow|block/i],
]) {
  test(`${what} the page says so and lets people in all the same`, () => withPage({ without: [flag] }, async (page) => {
    await eventually('the lobby says what is wrong', async () => {
      const notice = await page.textContent('#lobby-notice');
      return (await page.isVisible('#lobby-notice')) && word.test(notice);
    });
    await screenshot(page, `lobby ${what}`.replaceAll(' ', '-'));
    await joinByKeyboard(page);
  }));
}

test('at phone width nothing is wider than the screen', () => withPage({}, async (page) => {
  await page.setViewportSize({ width: 360, height: 740 });
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(await overflow(), 0, 'in the lobby');
  await joinByKeyboard(page);
  assert.equal(await overflow(), 0, 'in the call');
}));
