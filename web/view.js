// The stage: a picture or the live camera, its faces drawn over it, and which point is being read.

// As fn.py: fractions of the face's size (the longer side of its points).
const POINT_SIZE = 0.008;
const LINE_SIZE = 0.004;
const REACH = 16; // CSS pixels around the pointer in which a point is read
const THINNEST = 1.2; // CSS pixels of a line on the screen, however small the face is shown
const ZOOM_MARGIN = 0.35; // of the face's size, left around it when it is enlarged

const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

/** An answer of /api/faces as faces: {points: [{x, y, c}], size, box, hollow}, in pixels ((0, 0) is a pixel's middle). */
export function facesOf(result) {
  const hollow = new Set(result.hollow);
  return result.results.map((entry, i) => {
    const points = [];
    for (let k = 0; k < entry.keypoints.length; k += 3) {
      const [x, y, c] = entry.keypoints.slice(k, k + 3);
      points.push({ x, y, c });
    }
    const span = (axis) => {
      const values = points.map((p) => p[axis]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [x1, x2] = span("x");
    const [y1, y2] = span("y");
    return { points, hollow, bounds: [x1, y1, x2, y2], size: Math.max(x2 - x1, y2 - y1), box: result.boxes[i] };
  });
}

/** The number of the face nearest to `face`: a camera's come best first, in each frame anew. */
function nearest(faces, face) {
  const middle = ({ bounds: [x1, y1, x2, y2] }) => [(x1 + x2) / 2, (y1 + y2) / 2];
  const [x, y] = middle(face);
  const distances = faces.map(middle).map(([u, v]) => Math.hypot(u - x, v - y));
  return distances.indexOf(Math.min(...distances));
}

export class View {
  /**
   * schema: what /api/landmarks says. onRead({face, index}) or onRead(null): another point is read.
   */
  constructor(schema, onRead, onZoom) {
    this.schema = schema;
    this.onRead = onRead;
    this.onZoom = onZoom;
    this.partOf = [];
    for (const [part, { points }] of Object.entries(schema.parts)) for (const i of points) this.partOf[i] = part;
    this.hidden = new Set(); // parts that are switched off
    this.shown = { points: true, lines: true, boxes: false, numbers: false, mirror: false };
    this.faces = [];
    this.chosen = null; // {face, index}
    this.zoomed = null; // index of the face that is enlarged
    for (const id of ["stage", "view", "picture", "video", "overlay", "tip"]) this[id] = document.getElementById(id);
    this.stage.addEventListener("pointermove", (event) => this.point(event));
    this.stage.addEventListener("pointerdown", (event) => this.point(event));
    // a finger that is lifted leaves too: what it touched stays to be read
    this.stage.addEventListener("pointerleave", (event) => event.pointerType === "touch" || this.choose(null));
    this.overlay.addEventListener("keydown", (event) => this.key(event));
    this.view.addEventListener("transitionend", () => this.chosen && this.placeTip());
    addEventListener("resize", () => this.zoom(this.zoomed));
  }

  colour(part) {
    return `rgb(${this.schema.parts[part].colour.join(" ")})`;
  }

  /** Show a picture by its URL, or with url null the live video, with its faces. */
  show(url, result) {
    const live = url === null;
    this.picture.hidden = live;
    this.video.hidden = !live;
    if (!live && this.picture.src !== url) this.picture.src = url;
    this.width = result.width;
    this.height = result.height;
    this.live = live;
    this.view.hidden = false;
    this.view.style.setProperty("--ratio", result.width / result.height);
    const faces = facesOf(result);
    const same = (i) => (live && faces.length && this.faces[i] ? nearest(faces, this.faces[i]) : null);
    const { chosen } = this;
    this.zoomed = same(this.zoomed);
    const face = same(chosen?.face);
    this.faces = faces;
    this.choose(null);
    this.draw();
    if (face !== null) this.chosen = { face, index: chosen.index };
    this.zoom(this.zoomed);
  }

  hide() {
    this.view.hidden = true;
    this.faces = [];
    this.overlay.replaceChildren();
    this.zoomed = null;
    this.choose(null);
  }

  draw() {
    this.overlay.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.overlay.replaceChildren();
    const root = node("g", { transform: "translate(.5 .5)" }, this.overlay); // SVG counts from a pixel's corner
    this.faces.forEach((face, number) => {
      const group = node("g", { "data-face": number }, root);
      const [x1, y1, x2, y2] = face.box;
      const radius = Math.max(1, face.size * POINT_SIZE);
      node("rect", { class: "box", x: x1, y: y1, width: x2 - x1, height: y2 - y1 }, group);
      for (const [part, { points, lines }] of Object.entries(this.schema.parts)) {
        const own = node("g", { "data-part": part }, group);
        const at = (i) => `${face.points[i].x} ${face.points[i].y}`;
        const path = lines.map(([a, b]) => `M${at(a)}L${at(b)}`).join("");
        node("path", { class: "lines", d: path, stroke: this.colour(part) }, own);
        for (const i of points) {
          const { x, y } = face.points[i];
          const paint = face.hollow.has(i) ? { fill: "none", stroke: this.colour(part) } : { fill: this.colour(part) };
          node("circle", { class: "point", cx: x, cy: y, "data-index": i, ...paint }, own);
          const size = face.size * 0.024;
          const label = node("text", { x: x + radius, y: y - radius, "font-size": size, "stroke-width": size / 6 }, own);
          label.textContent = i;
        }
      }
    });
    this.mark = node("circle", { class: "chosen", visibility: "hidden" }, root);
    this.toggle();
  }

  /** Apply `hidden` and `shown` to what is drawn. */
  toggle() {
    const set = (selector, visible) => {
      for (const found of this.overlay.querySelectorAll(selector)) found.style.display = visible ? "" : "none";
    };
    for (const part of Object.keys(this.schema.parts)) set(`[data-part=${part}]`, !this.hidden.has(part));
    set(".point", this.shown.points);
    set(".lines", this.shown.lines);
    set(".box", this.shown.boxes);
    set("text", this.shown.numbers);
    this.view.classList.toggle("mirrored", this.mirrored);
    if (this.chosen && !this.readable(this.chosen.index)) this.choose(null);
  }

  get mirrored() {
    return Boolean(this.live && this.shown.mirror);
  }

  readable(index) {
    return !this.hidden.has(this.partOf[index]);
  }

  /** Read the point nearest to the pointer. */
  point(event) {
    if (this.view.hidden || event.target.closest("button")) return;
    const frame = this.view.getBoundingClientRect();
    const scale = frame.width / this.width; // CSS pixels of a picture's pixel
    let x = (event.clientX - frame.left) / scale - 0.5;
    const y = (event.clientY - frame.top) / scale - 0.5;
    if (this.mirrored) x = this.width - 1 - x;
    let best = null;
    let least = REACH / scale;
    this.faces.forEach((face, number) =>
      face.points.forEach((p, index) => {
        const distance = Math.hypot(p.x - x, p.y - y);
        if (distance < least && this.readable(index)) [best, least] = [{ face: number, index }, distance];
      }),
    );
    this.choose(best);
  }

  choose(chosen, tell = true) {
    const same = chosen?.face === this.chosen?.face && chosen?.index === this.chosen?.index;
    this.chosen = chosen;
    if (!chosen) {
      this.mark?.setAttribute("visibility", "hidden");
      this.tip.hidden = true;
    } else {
      const face = this.faces[chosen.face];
      const { x, y } = face.points[chosen.index];
      const values = { cx: x, cy: y, r: Math.max(4 * this.pixel, face.size * POINT_SIZE * 2.2), visibility: "visible" };
      for (const [key, value] of Object.entries(values)) this.mark.setAttribute(key, value);
      this.mark.setAttribute("stroke-width", values.r / 3);
    }
    if (tell && same && chosen) return this.placeTip();
    this.onRead(chosen);
    if (chosen) this.placeTip();
  }

  /** The tip beside the point that is read, inside the stage. */
  placeTip() {
    const { x, y } = this.faces[this.chosen.face].points[this.chosen.index];
    const frame = this.view.getBoundingClientRect();
    const stage = this.stage.getBoundingClientRect();
    const scale = frame.width / this.width;
    const left = frame.left - stage.left + (this.mirrored ? this.width - 1 - x : x) * scale;
    const top = frame.top - stage.top + y * scale;
    this.tip.hidden = false;
    const keep = (value, most) => `${Math.max(4, Math.min(value, most))}px`;
    this.tip.style.left = keep(left + 14, stage.width - this.tip.offsetWidth - 6);
    const below = top + 16 + this.tip.offsetHeight < stage.height;
    this.tip.style.top = keep(below ? top + 14 : top - 14 - this.tip.offsetHeight, stage.height);
  }

  /** Enlarge a face, or null for the whole picture. */
  zoom(number) {
    this.zoomed = number;
    let scale = 1;
    if (number === null || this.view.hidden) {
      this.view.style.transform = "";
    } else {
      const face = this.faces[number];
      const [x1, y1, x2, y2] = face.bounds;
      const margin = face.size * ZOOM_MARGIN;
      const stage = this.stage;
      const unit = this.view.offsetWidth / this.width;
      const most = (length, room) => room / ((length + 2 * margin) * unit);
      scale = Math.max(1, Math.min(most(x2 - x1, stage.clientWidth), most(y2 - y1, stage.clientHeight)));
      const centre = (low, high) => ((low + high) / 2 + 0.5) * unit * scale;
      let middle = centre(x1, x2);
      if (this.mirrored) middle = this.view.offsetWidth * scale - middle;
      const dx = stage.clientWidth / 2 - this.view.offsetLeft - middle;
      const dy = stage.clientHeight / 2 - this.view.offsetTop - centre(y1, y2);
      this.view.style.transform = `translate(${dx}px, ${dy}px) scale(${scale})`;
    }
    this.size(this.width / (this.view.offsetWidth * scale || 1));
    if (this.chosen) this.choose(this.chosen, false);
    this.onZoom(number);
  }

  /** Lines and points as large as fn.py draws them, but never too thin to see. pixel: a CSS pixel in the picture's. */
  size(pixel) {
    this.pixel = pixel;
    for (const group of this.overlay.querySelectorAll("[data-face]")) {
      const { size } = this.faces[group.dataset.face];
      group.style.setProperty("--line", Math.max(size * LINE_SIZE, THINNEST * pixel));
      group.style.setProperty("--point", Math.max(size * POINT_SIZE, 1.4 * THINNEST * pixel));
    }
  }

  key(event) {
    if (!this.faces.length) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const turn = { PageDown: 1, PageUp: -1 }[event.key];
    if (event.key === "Escape") {
      this.zoom(null);
      this.choose(null);
    } else if (step) {
      this.step(step);
    } else if (turn) {
      const last = this.faces.length - 1;
      const next = this.zoomed === null ? (turn > 0 ? 0 : last) : this.zoomed + turn;
      this.zoom(next < 0 || next > last ? null : next);
      this.choose(null);
    } else {
      return;
    }
    event.preventDefault();
  }

  step(direction) {
    const indices = this.partOf.map((_, i) => i).filter((i) => this.readable(i));
    if (!indices.length) return;
    const face = this.chosen?.face ?? this.zoomed ?? 0;
    const now = this.chosen ? indices.indexOf(this.chosen.index) : direction > 0 ? -1 : 0;
    this.choose({ face, index: indices[(now + direction + indices.length) % indices.length] });
  }

  /** The picture with what is shown of its points, at its full size: a canvas. */
  drawn(source) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.width, this.height];
    const pen = canvas.getContext("2d");
    pen.drawImage(source, 0, 0, this.width, this.height);
    pen.translate(0.5, 0.5);
    pen.lineCap = "round";
    for (const face of this.faces) {
      const radius = Math.max(1, face.size * POINT_SIZE);
      pen.lineWidth = Math.max(1, face.size * LINE_SIZE);
      if (this.shown.boxes) {
        const [x1, y1, x2, y2] = face.box;
        pen.strokeStyle = "#fff";
        pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      }
      const parts = Object.entries(this.schema.parts).filter(([part]) => !this.hidden.has(part));
      for (const [part, { points, lines }] of parts) {
        pen.strokeStyle = pen.fillStyle = this.colour(part);
        const segments = new Path2D();
        for (const [a, b] of lines) {
          segments.moveTo(face.points[a].x, face.points[a].y);
          segments.lineTo(face.points[b].x, face.points[b].y);
        }
        if (this.shown.lines) pen.stroke(segments);
        for (const i of this.shown.points ? points : []) {
          const dot = new Path2D();
          dot.arc(face.points[i].x, face.points[i].y, radius, 0, 2 * Math.PI);
          face.hollow.has(i) ? pen.stroke(dot) : pen.fill(dot);
        }
        if (this.shown.numbers) this.drawNumbers(pen, face, points, radius);
      }
    }
    return canvas;
  }

  drawNumbers(pen, face, points, radius) {
    pen.save();
    pen.font = `${face.size * 0.024}px sans-serif`;
    [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = ["#fff", "#000", face.size * 0.004];
    for (const i of points) {
      const { x, y } = face.points[i];
      pen.strokeText(i, x + radius, y - radius);
      pen.fillText(i, x + radius, y - radius);
    }
    pen.restore();
  }
}
