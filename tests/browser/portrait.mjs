// Draws the README's pictures: four people in a room of the real server, cameras painted on a canvas.
//
//   node portrait.mjs    writes scripts/docs/room.png, scripts/docs/room-dark.png and scripts/docs/room-phone.png

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { launch } from './lib/browser.mjs';
import { eventually, sleep } from './lib/eventually.mjs';
import { root } from './lib/paths.mjs';
import { Server } from './lib/server.mjs';

const PEOPLE = [
  { name: 'Ana Lind', wall: ['#6d8fa6', '#2e4459'], skin: '#eac1a0', hair: '#5b3a26', shirt: '#2f5d62' },
  { name: 'Bo Chen', wall: ['#b59a7a', '#5e4a3a'], skin: '#e3b48c', hair: '#1d1a18', shirt: '#7a3b3b' },
  { name: 'Carmen Ruiz', wall: ['#8fa88b', '#3b5445'], skin: '#c98f68', hair: '#2a1a14', shirt: '#c9a13b' },
  { name: 'Dmitri Volkov', camera: '0' },
];

const docs = join(root, 'scripts/docs');
const server = await Server.start('portrait');
const browser = await launch();
try {
  const tabs = [];
  for (const person of PEOPLE) tabs.push(await enter(person));
  for (const tab of tabs.slice(2)) await tab.click('#mic');
  const [ana] = tabs;
  await eventually('somebody speaks', () => ana.evaluate(() => document.querySelector('.tile.dominant figcaption:has(svg.gone)') !== null));
  await eventually('everybody is seen', () => ana.evaluate(() => document.querySelectorAll('.tile.has-video').length === 3));
  await sleep(7000); // messages about who joined fade, pictures sharpen
  mkdirSync(docs, { recursive: true });
  await ana.screenshot({ path: join(docs, 'room.png') });
  await ana.emulateMedia({ colorScheme: 'dark' });
  await sleep(500);
  await ana.screenshot({ path: join(docs, 'room-dark.png') });
  await ana.setViewportSize({ width: 390, height: 844 });
  await sleep(1000);
  await ana.screenshot({ path: join(docs, 'room-phone.png') });
} finally {
  await browser.close();
  await server.stop();
}

async function enter({ name, camera = '1', ...look }) {
  const settings = new URLSearchParams({ room: 'design-review', name, camera, autojoin: '1' });
  const page = await browser.open(name, 'about:blank');
  await page.setViewportSize({ width: 1280, height: 760 });
  if (camera === '1') await page.addInitScript(paintedCamera, look);
  await page.goto(server.url(`/#${settings}`));
  await eventually(`${name} is connected`, () => page.evaluate(() => window.tramline?.media === 'connected'));
  return page;
}

// Runs in the page: getUserMedia gives a drawing for the camera.
function paintedCamera({ wall, skin, hair, shirt }) {
  const paint = (pen, tick) => {
    const nod = Math.sin(tick / 20) * 2;
    const shape = (colour, x, y, width, height, from = 0, to = 7) => {
      pen.fillStyle = colour;
      pen.beginPath();
      pen.ellipse(x, y, width, height, 0, from, to);
      pen.fill();
    };
    const box = (colour, ...sides) => {
      pen.fillStyle = colour;
      pen.fillRect(...sides);
    };
    const light = pen.createLinearGradient(0, 0, 640, 360);
    wall.forEach((colour, index) => light.addColorStop(index, colour));
    box(light, 0, 0, 640, 360);
    box('rgb(255 255 255 / 14%)', 45, 45, 125, 165);
    for (const x of [55, 110]) box('rgb(255 255 255 / 14%)', x, 55, 50, 70);
    box('rgb(0 0 0 / 12%)', 480, 210, 160, 8);
    [[505, 17, 45], [525, 14, 35], [543, 20, 40]].forEach(([x, width, height]) => box('rgb(0 0 0 / 12%)', x, 210 - height, width, height));
    shape(hair, 320, 142 + nod, 75, 88);
    shape(shirt, 320, 380, 165, 125);
    box(skin, 295, 200 + nod, 50, 65);
    shape(skin, 320, 162 + nod, 58, 75);
    shape(hair, 320, 107 + nod, 62, 35, Math.PI, 0);
    for (const x of [298, 342]) shape('#2b2320', x, 157 + nod, 4.5, 4.5);
    pen.lineWidth = 3;
    pen.strokeStyle = 'rgb(90 30 30 / 65%)';
    pen.beginPath();
    pen.arc(320, 186 + nod, 18, 0.35, Math.PI - 0.35);
    pen.stroke();
  };
  const devices = navigator.mediaDevices;
  const real = devices.getUserMedia.bind(devices);
  devices.getUserMedia = async ({ video, audio }) => {
    const tracks = audio ? (await real({ audio })).getTracks() : [];
    if (!video) return new MediaStream(tracks);
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
    const pen = canvas.getContext('2d');
    let tick = 0;
    setInterval(() => paint(pen, (tick += 1)), 66);
    return new MediaStream([...tracks, ...canvas.captureStream(15).getTracks()]);
  };
}
