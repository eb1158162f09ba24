// Pictures of arrays: grey values, and attributions in red (for) and blue (against).

const GREY = (value) => [value * 255, value * 255, value * 255];
const SIGNED = (value) => {
  const strength = Math.min(1, Math.abs(value));
  const pale = 245 * (1 - strength);
  return value >= 0 ? [pale + 215 * strength, pale + 25 * strength, pale] : [pale, pale + 40 * strength, pale + 200 * strength];
};

function paint(canvas, values, width, colour) {
  const height = values.length / width;
  const small = new ImageData(width, height);
  values.forEach((value, i) => small.data.set([...colour(value), 255], i * 4));
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(small, 0, 0);
}

/** Attributions over the image that they explain, which shows through where nothing counts. */
export function heat(canvas, attributions, values, width) {
  const largest = attributions.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const places = attributions.map((_, i) => i);
  paint(canvas, places, width, (i) => {
    const strength = Math.min(1, Math.abs(attributions[i]) / largest) ** 0.7;
    const [full, ground] = [SIGNED(Math.sign(attributions[i])), 245 - 110 * values[i]];
    return full.map((colour) => ground + (colour - ground) * strength);
  });
}

export const grey = (canvas, values, width) => paint(canvas, values, width, GREY);

export function signed(canvas, values, width) {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  paint(canvas, values.map((value) => value / largest), width, SIGNED);
}
