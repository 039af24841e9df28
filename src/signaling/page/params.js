// What the address of the page asks for.
//
// `#lobby` names the room: that is the link people share. `?` and `#` also take `room=`, `name=`,
// `autojoin=1` (enter at once), `token=` (where the room needs one), `width=`, `height=`, `fps=` (camera size), `camera=0`, `mic=0` (start without).

/** Reads the settings in the address. */
export function readParams(location) {
  const hash = location.hash.slice(1);
  const params = new URLSearchParams(location.search);
  if (hash.includes('=')) {
    for (const [key, value] of new URLSearchParams(hash)) params.set(key, value);
  } else if (hash) {
    params.set('room', decode(hash));
  }
  return {
    room: params.get('room') ?? '',
    name: params.get('name') ?? '',
    token: params.get('token') ?? '',
    autojoin: params.get('autojoin') === '1',
    camera: params.get('camera') !== '0',
    mic: params.get('mic') !== '0',
    width: positive(params.get('width')),
    height: positive(params.get('height')),
    fps: positive(params.get('fps')),
  };
}

/** The link that brings somebody else into the room. */
export function shareLink(location, room) {
  return `${location.origin}${location.pathname}#${encodeURIComponent(room)}`;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function positive(text) {
  const number = Number(text);
  return number > 0 ? number : undefined;
}
