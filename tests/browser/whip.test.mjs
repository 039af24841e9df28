// The publisher's and the player's page: live by WHIP and WHEP, layers chosen, ICE restarted, what is wrong in words.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { launch, received, screenshot } from './lib/browser.mjs';
import { eventually } from './lib/eventually.mjs';
import { Server } from './lib/server.mjs';
import { step } from './lib/step.mjs';

/** Three encoders share two cores, and Chromium begins with the smallest picture. */
const SIMULCAST_MS = 60_000;

let server;
let browser;
let publisher;
let player;

before(async () => {
  server = await Server.start('whip');
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.kill();
});

const picture = async (page) => [...(await received(page, 'window.tramline.pc')).values()].find(({ kind }) => kind === 'video');
const sound = async (page) => [...(await received(page, 'window.tramline.pc')).values()].find(({ kind }) => kind === 'audio');
const state = (page) => page.evaluate(() => window.tramline.state);
const told = (page, name) => page.evaluate((field) => window.tramline[field], name);
const text = (page, selector) => page.locator(selector).innerText();

async function moves(page, what) {
  const before = (await picture(page))?.frames ?? 0;
  await eventually(what, async () => ((await picture(page))?.frames ?? 0) > before + 10);
}

step('who watches before anybody publishes is told so', async () => {
  player = await browser.open('player', server.url('/web/player.html?room=stage'));
  await eventually('the player is connected', async () => (await state(player)) === 'live');
  await eventually('it says that it waits', async () => (await text(player, '#status')).includes('Waiting for somebody'));
  await eventually('it counts itself', async () => (await text(player, '#viewers')) === '1 viewer');
  assert.match(await text(player, '#empty'), /Nobody publishes here yet/);
  await screenshot(player, 'player-waiting');
});

step('a camera goes live, and the player shows it by itself', async () => {
  publisher = await browser.open('publisher', server.url('/web/publisher.html?room=stage'));
  await eventually('the camera is there', () => publisher.evaluate(() => document.querySelector('#preview').classList.contains('has-video')));
  await screenshot(publisher, 'publisher');
  await publisher.click('#publish');
  await eventually('the publisher is live', async () => (await state(publisher)) === 'live');
  await eventually('the player knows', async () => told(player, 'isActive'));
  await moves(player, 'the picture moves');
  await eventually('sound comes', async () => (await sound(player))?.energy > 0);
  assert.equal(await player.isVisible('#empty'), false);
});

step('the layers of the simulcast are told and can be chosen', async () => {
  const layers = await eventually('two sizes at least', async () => {
    const [, list] = Object.entries(await told(player, 'layers'))[0] ?? [];
    const rids = new Set(list?.map(({ rid }) => rid));
    return rids.size >= 2 && list.every(({ width, height, bitrate }) => width && height && bitrate !== undefined) && list;
  }, SIMULCAST_MS);
  const widths = layers.map(({ width }) => width);
  const [least, most] = [Math.min(...widths), Math.max(...widths)];
  await eventually('the best one comes by itself', async () => (await picture(player)).width >= most * 0.9, SIMULCAST_MS);
  const of = (width) => player.evaluate((size) => {
    const option = [...document.querySelector('#layer').options].find(({ text }) => text.startsWith(`${size} ×`));
    document.querySelector('#layer').value = option.value;
    document.querySelector('#layer').dispatchEvent(new Event('change'));
  }, width);
  await of(least);
  await eventually('the smallest picture comes', async () => (await picture(player)).width === least);
  await moves(player, 'it moves');
  await screenshot(player, 'player');
  await player.selectOption('#layer', '');
  await eventually('the best one comes again', async () => (await picture(player)).width > least, SIMULCAST_MS);
});

step('the pages in the dark and on a phone', async () => {
  await player.click('#show-stats');
  for (const [page, name] of [[publisher, 'publisher'], [player, 'player']]) {
    await page.bringToFront();
    await screenshot(page, `${name}-live`);
    await page.emulateMedia({ colorScheme: 'dark' });
    await screenshot(page, `${name}-dark`);
    if (name === 'player') await page.click('#show-stats');
    await page.setViewportSize({ width: 390, height: 844 });
    await screenshot(page, `${name}-phone`);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${name} is ${overflow} px too wide for a phone`);
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize({ width: 1280, height: 800 });
  }
  const index = await browser.open('index', server.url('/web/'));
  await screenshot(index, 'web');
  await index.fill('#room', 'a room');
  assert.match(await index.getAttribute('#watch', 'href'), /player\.html\?room=a\+room$/);
  await index.close();
});

step('ICE restarts on both sides, and media goes on', async () => {
  for (const [page, name] of [[publisher, 'publisher'], [player, 'player']]) {
    const ufrags = () => page.evaluate(() => ['localDescription', 'remoteDescription'].map((side) => /a=ice-ufrag:(.*)/.exec(window.tramline.pc[side].sdp)[1]));
    const dtls = () => page.evaluate(async () => {
      const transport = [...(await window.tramline.pc.getStats()).values()].find(({ type }) => type === 'transport');
      return [transport.dtlsState, transport.dtlsRole, transport.iceLocalUsernameFragment];
    });
    const [before, [, role]] = [await ufrags(), await dtls()];
    await page.evaluate(() => window.tramline.restart());
    const now = await ufrags();
    assert.ok(now[0] !== before[0] && now[1] !== before[1], `${name}: ${before} became ${now}`);
    await eventually(`${name}: checks are made with the new credentials`, async () => {
      const [dtlsState, dtlsRole, ufrag] = await dtls();
      return dtlsState === 'connected' && dtlsRole === role && ufrag === now[0];
    });
    await moves(player, `${name}: the picture goes on`);
    assert.equal(await state(page), 'live');
  }
});

step('viewers are counted', async () => {
  const second = await browser.open('second', server.url('/web/player.html?room=stage'));
  await eventually('the first one knows of the second', async () => (await text(player, '#viewers')) === '2 viewers');
  await moves(second, 'the second one sees it, too');
  await second.close();
  await eventually('it has left with its page', async () => (await text(player, '#viewers')) === '1 viewer');
});

step('a second publisher is told in words', async () => {
  const second = await browser.open('second', server.url('/web/publisher.html?room=stage&autostart=1'));
  await eventually('it says why', async () => (await text(second, '#status')).includes('this room has a publisher already'));
  await screenshot(second, 'publisher-refused');
  await second.click('#publish');
  assert.equal(await state(second), 'idle');
  await second.close();
});

step('a screen takes the place of the camera', async () => {
  await publisher.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 400 });
    const pen = canvas.getContext('2d');
    setInterval(() => pen.fillRect(Math.random() * 600, Math.random() * 400, 20, 20), 40);
    window.tramline.shareStream(canvas.captureStream(20));
  });
  await eventually('the player sees its shape', async () => {
    const { width, height } = await picture(player);
    return Math.abs(width / height - 1.6) < 0.05;
  }, SIMULCAST_MS);
});

step('the publisher stops, and another one follows', async () => {
  await publisher.click('#publish');
  await eventually('the player waits again', async () => (await text(player, '#status')).includes('Waiting for somebody'));
  await publisher.click('#publish');
  await eventually('the player knows', async () => told(player, 'isActive'));
  await moves(player, 'the picture moves again');
});

step('when the server is gone both say so, and come back with it', async () => {
  await server.kill();
  for (const page of [publisher, player]) {
    await eventually('it says so', async () => ['interrupted', 'waiting'].includes(await state(page)), SIMULCAST_MS);
  }
  await server.again();
  for (const page of [publisher, player]) {
    await eventually('it is back', async () => (await state(page)) === 'live', SIMULCAST_MS);
  }
  await moves(player, 'the picture moves again');
});
