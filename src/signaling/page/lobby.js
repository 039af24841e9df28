// The door: name, room, devices with a preview, and what is wrong with them.

import { icon } from './grid.js';

const NAME = 'tramline.name';
const byId = (id) => document.getElementById(id);

export class Lobby {
  #media;
  #wanted;

  /** `onJoin({ room, name })` when somebody enters. */
  constructor(media, params, onJoin) {
    this.#media = media;
    this.#wanted = { camera: params.camera, microphone: params.mic };
    byId('name').value = params.name || (localStorage.getItem(NAME) ?? '');
    byId('room').value = params.room || 'lobby';
    byId('join-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const answer = { room: byId('room').value.trim(), name: byId('name').value.trim() };
      if (!answer.room || !answer.name) return this.say('A name and a room are needed to join.');
      localStorage.setItem(NAME, answer.name);
      return onJoin(answer);
    });
    byId('preview-mic').addEventListener('click', () => toggleMicrophone(media));
    byId('preview-camera').addEventListener('click', () => toggleCamera(media));
    for (const source of ['camera', 'microphone']) {
      byId(`${source}-choice`).addEventListener('change', ({ target }) => media.choose(source, target.value));
    }
    media.addEventListener('change', () => this.draw());
  }

  /** Shows the door and wakes the devices. */
  async open(text = '') {
    byId('lobby').hidden = false;
    this.say(text);
    this.showDevices(byId('device-home'));
    this.draw();
    byId(byId('name').value ? 'join' : 'name').focus();
    await this.#media.open(this.#wanted);
  }

  close() {
    byId('lobby').hidden = true;
    byId('preview-video').srcObject = null;
  }

  /** A sentence about what is wrong; empty clears it. */
  say(text) {
    const notice = byId('lobby-notice');
    notice.textContent = text;
    notice.hidden = !text;
  }

  /** The sentence that stands there. */
  get said() {
    return byId('lobby-notice').textContent;
  }

  level(value) {
    byId('preview-level').value = Math.min(1, value * 4);
  }

  /** The device lists exist once and live at the door or in the dialog. */
  showDevices(home) {
    home.append(byId('device-fields'));
  }

  draw() {
    const { camera, microphone } = this.#media;
    drawMicrophone(byId('preview-mic'), microphone);
    drawCamera(byId('preview-camera'), camera);
    const video = byId('preview-video');
    if (!byId('lobby').hidden && video.srcObject?.getTracks()[0] !== camera) {
      video.srcObject = camera ? new MediaStream([camera]) : null;
    }
    byId('preview').classList.toggle('has-video', Boolean(camera));
    byId('preview-off').hidden = Boolean(camera);
    for (const source of ['camera', 'microphone']) this.#fill(source);
  }

  async #fill(source) {
    const select = byId(`${source}-choice`);
    const devices = await this.#media.list(source);
    const chosen = this.#media.chosen(source);
    const none = source === 'camera' ? 'No camera found' : 'No microphone found';
    const options = devices.map(({ id, label }) => new Option(label, id, false, id === chosen));
    select.replaceChildren(...(options.length ? options : [new Option(none, '')]));
    select.disabled = options.length === 0;
  }
}

/** Mutes, unmutes, or starts the microphone. */
export async function toggleMicrophone(media) {
  if (!media.microphone) return media.start('microphone');
  media.microphone.enabled = !media.microphone.enabled;
  return media.dispatchEvent(new Event('change'));
}

/** Starts or stops the camera; stopping puts its light out. */
export async function toggleCamera(media) {
  if (media.camera) return media.stop('camera');
  return media.start('camera');
}

export function drawMicrophone(button, track) {
  const on = Boolean(track?.enabled);
  drawButton(button, on ? 'i-mic' : 'i-mic-off', on ? 'Mute microphone' : 'Turn microphone on', 'Mic', !on);
}

export function drawCamera(button, track) {
  drawButton(button, track ? 'i-camera' : 'i-camera-off', track ? 'Turn camera off' : 'Turn camera on', 'Camera', !track);
}

/** One look for all round buttons: icon, a short word below, the full sentence for readers and as tooltip. */
export function drawButton(button, iconName, label, word, off = false) {
  button.classList.toggle('off', off);
  if (button.getAttribute('aria-label') === label) return;
  button.setAttribute('aria-label', label);
  button.title = label;
  const text = Object.assign(document.createElement('span'), { className: 'word', textContent: word });
  text.setAttribute('aria-hidden', 'true');
  const face = Object.assign(document.createElement('span'), { className: 'face' });
  face.append(icon(iconName));
  button.replaceChildren(face, text);
}
