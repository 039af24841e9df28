// A camera whose every picture says which one it is, and a reader that finds out which pictures arrive, and how whole.
//
// Runs in the page, before its own scripts. Each picture has a number: as Gray code in four by four cells (one cell
// changes from one picture to the next) beside a bar that moves. Who knows the number knows the whole picture, so what
// is shown can be compared with what was sent.

{
  const CELLS = 4;
  const BITS = CELLS * CELLS;
  const [DARK, LIGHT] = [50, 205];
  /** Size of the picture that is compared: cells of 8 × 9, so that edges and what coding does to them weigh little. */
  const [SEEN_WIDTH, SEEN_HEIGHT] = [64, 36];
  const BLOCK = 4;
  const BAR_STEPS = 24;

  /** All of it changes a little from picture to picture: encoders take a short cut where little does, and miss cells. */
  const WAVER = 12;
  const gray = (level, number) => {
    const wavering = level + WAVER * Math.sin(number / 2);
    return `rgb(${wavering} ${wavering} ${wavering})`;
  };

  function draw(context, width, height, number) {
    const code = number ^ (number >> 1);
    context.fillStyle = gray(DARK, number);
    context.fillRect(0, 0, width, height);
    const [across, down] = [width / 2 / CELLS, height / CELLS];
    context.fillStyle = gray(LIGHT, number);
    for (let bit = 0; bit < BITS; bit += 1) {
      if ((code >> bit) & 1) context.fillRect((bit % CELLS) * across, Math.floor(bit / CELLS) * down, across, down);
    }
    const at = (number % BAR_STEPS) / BAR_STEPS;
    context.fillStyle = 'rgb(40 160 220)';
    context.fillRect(width / 2, at * height * 0.75, width / 2, height / 4);
  }

  /** A camera track of that size; the last number drawn is in `window.pattern.sent`, when each was in `painted`. */
  function camera({ width, height, fps }) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    const stream = canvas.captureStream(fps);
    setInterval(() => {
      draw(context, width, height, (window.pattern.sent += 1));
      window.pattern.painted[window.pattern.sent] = performance.timeOrigin + performance.now();
    }, 1000 / fps);
    return stream.getVideoTracks()[0];
  }

  const small = () => new OffscreenCanvas(SEEN_WIDTH, SEEN_HEIGHT).getContext('2d', { willReadFrequently: true });
  const [shown, expected] = [small(), small()];

  function pixels(context) {
    return context.getImageData(0, 0, SEEN_WIDTH, SEEN_HEIGHT).data;
  }

  function numberIn(data) {
    let code = 0;
    for (let bit = 0; bit < BITS; bit += 1) {
      const [x, y] = [(bit % CELLS) * 8 + 4, Math.floor(bit / CELLS) * 9 + 4];
      if (data[(y * SEEN_WIDTH + x) * 4 + 1] > (DARK + LIGHT) / 2) code |= 1 << bit;
    }
    let number = 0;
    for (; code; code >>= 1) number ^= code;
    return number;
  }

  /** The largest difference of means over a block of the picture, 0 to 255. */
  function damage(one, other) {
    let worst = 0;
    for (let top = 0; top < SEEN_HEIGHT; top += BLOCK) {
      for (let left = 0; left < SEEN_WIDTH; left += BLOCK) {
        let sum = 0;
        for (let y = top; y < top + BLOCK; y += 1) {
          for (let x = left; x < left + BLOCK; x += 1) {
            const at = (y * SEEN_WIDTH + x) * 4 + 1;
            sum += one[at] - other[at];
          }
        }
        worst = Math.max(worst, Math.abs(sum) / (BLOCK * BLOCK));
      }
    }
    return Math.round(worst);
  }

  /** Writes what an element shows into `window.pattern.seen`: { number, width, damage, at }. */
  function watch(video) {
    const { seen } = window.pattern;
    const look = () => {
      shown.drawImage(video, 0, 0, SEEN_WIDTH, SEEN_HEIGHT);
      const data = pixels(shown);
      const number = numberIn(data);
      expected.imageSmoothingEnabled = true;
      draw(expected, SEEN_WIDTH, SEEN_HEIGHT, number);
      seen.push({ number, width: video.videoWidth, damage: damage(data, pixels(expected)), at: performance.now() });
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }

  window.pattern = { sent: 0, painted: [], seen: [], camera, watch };
}
