// The drawing pad: light strokes on a dark ground, by mouse, finger or keyboard.

const PEN = 20;
const STEP = 8;

export class Pad {
  /** `onChange` is called with true when a drawing is complete, with false while it grows. */
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.pen = { x: canvas.width / 2, y: canvas.height / 2, down: false };
    this.last = null;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.#end());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    this.#wipe();
  }

  clear() {
    this.#wipe();
    this.onChange(true);
  }

  get empty() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < data.length; i += 4) if (data[i]) return false;
    return true;
  }

  /** Draw lines through points of 0 to 1, one list for each stroke. */
  strokes(lines) {
    this.#wipe();
    const { width, height } = this.canvas;
    for (const line of lines) {
      const points = line.map(([x, y]) => ({ x: x * width, y: y * height }));
      points.forEach((point, i) => this.#line(points[Math.max(0, i - 1)], point));
    }
    this.onChange(true);
  }

  blob() {
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }

  #wipe() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  #line(from, to) {
    const context = this.context;
    context.strokeStyle = "#fff";
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
  }

  #begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.#at(event);
    this.#line(this.last, this.last);
    this.onChange(false);
  }

  #move(event) {
    if (!this.last) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) {
      const point = this.#at(each);
      this.#line(this.last, point);
      this.last = point;
    }
    this.onChange(false);
  }

  #end() {
    if (!this.last) return;
    this.last = null;
    this.onChange(true);
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") this.clear();
    else if (event.key === " ") this.pen.down = !this.pen.down;
    else if (moves[event.key]) {
      const [x, y] = moves[event.key];
      const inside = (value, size) => Math.min(size - PEN, Math.max(PEN, value));
      const to = {
        x: inside(this.pen.x + x * STEP, this.canvas.width),
        y: inside(this.pen.y + y * STEP, this.canvas.height),
        down: this.pen.down,
      };
      if (this.pen.down) {
        this.#line(this.pen, to);
        this.onChange(true);
      }
      this.pen = to;
    } else return;
    event.preventDefault();
  }
}
