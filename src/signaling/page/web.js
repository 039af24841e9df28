// The first page: a room, and what to do there.

import { byId, pageFor, settings } from './broadcast.js';

byId('room').value = settings().get('room') ?? 'stage';
const targets = { publish: 'publisher.html', watch: 'player.html' };
const draw = () => {
  const room = byId('room').value.trim();
  for (const [id, page] of Object.entries(targets)) byId(id).href = pageFor(page, room);
  byId('meet').href = `../#${encodeURIComponent(room)}`;
};
byId('room').addEventListener('input', draw);
draw();
byId('web-form').addEventListener('submit', (event) => {
  event.preventDefault();
  location.href = byId('watch').href;
});

const bootstrap = await fetch('../api/bootstrap').then((response) => response.json()).catch(() => null);
byId('records').hidden = !bootstrap?.features?.records;
