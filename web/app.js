// The page: pictures and camera frames go to /api/faces one at a time; what comes back is shown and can be taken home.

import { TEXTS, getLanguage, partName, pointName, setLanguage, text } from "./texts.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const CAMERA_SIDE = 640; // pixels of the longer side of a frame that is sent
const schema = await getSchema();
const limits = { mb: +(schema.limits.bytes / 2 ** 20).toFixed(1), mp: +(schema.limits.pixels / 1e6).toFixed(1) };
const view = new View(schema, showReading, showZoom);

// A picture: {name, file, url, state: waiting | working | done | bad, result, error: {key, detail}}
const pictures = [];
let selected = null;
let before = null; // what was selected when the camera was started
let told = () => ""; // the message that is shown, in the language of the moment
let asked = null; // while the browser asks for the camera: of which click
let live = null; // {stream, frame: canvas of the last answer's frame, result, fps}
let working = false;

// --- talking to the server -----------------------------------------------------------------------------------------

/** What the server knows of the points. The page is empty without it, so that is said, in both languages. */
async function getSchema() {
  try {
    return await (await fetch("api/landmarks")).json();
  } catch (error) {
    $("empty").hidden = true;
    $("message").hidden = false;
    $("message").textContent = `${TEXTS.en.noServer} ${TEXTS.zh.noServer}`;
    throw error;
  }
}

/** Faces of a file; throws {key, detail} with the sentence's key in texts.js. */
async function findFaces(file, name) {
  if (file.size > schema.limits.bytes) throw { key: "too_large" };
  let response, answer;
  try {
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    response = await fetch(`api/faces?name=${encodeURIComponent(name)}`, { method: "POST", body: file, headers });
    answer = await response.json();
  } catch {
    throw { key: "lost" };
  }
  if (response.ok) return answer;
  const known = ["too_large", "too_many_pixels", "wrong_type", "unreadable", "busy"];
  throw known.includes(answer.code) ? { key: answer.code, detail: answer.error } : { key: "other", detail: answer.error };
}

/** The name, or with a number where a picture has it: what is pasted is always called image.png. */
function unused(name) {
  const [, stem, suffix] = name.match(/^(.*?)(\.[^.]*)?$/s);
  for (let own = name, number = 2; ; own = `${stem}~${number++}${suffix ?? ""}`)
    if (!pictures.some((picture) => picture.name === own)) return own;
}

function add(files) {
  for (const file of files)
    pictures.push({ name: unused(file.name), file, url: URL.createObjectURL(file), state: "waiting" });
  if (!files.length) return;
  stopCamera();
  select(pictures[pictures.length - files.length]);
  work();
}

/** Send a picture again that did not arrive. */
function retry(picture) {
  [picture.state, picture.error] = ["waiting", null];
  work();
}

/** Every waiting picture, one after another, in order. */
async function work() {
  if (working) return;
  working = true;
  for (let picture; (picture = pictures.find((p) => p.state === "waiting")); ) {
    picture.state = "working";
    refresh(picture);
    try {
      picture.result = await findFaces(picture.file, picture.name);
      picture.state = "done";
    } catch (error) {
      if (error.key === "busy") {
        picture.state = "waiting";
        await new Promise((done) => setTimeout(done, 1000));
        continue;
      }
      picture.error = error.key ? error : { key: "other", detail: String(error) };
      picture.state = "bad";
    }
    refresh(picture);
  }
  working = false;
}

// --- showing -------------------------------------------------------------------------------------------------------

function refresh(picture) {
  drawStrip();
  if (picture === selected && !live) select(picture);
  else showTools();
}

function tell(sentence) {
  told = sentence;
  $("message").hidden = false;
  $("message").textContent = told();
}

function select(picture) {
  selected = picture;
  const has = Boolean(picture?.result);
  $("empty").hidden = Boolean(picture);
  $("message").hidden = picture?.state !== "bad";
  if (has) view.show(picture.url, picture.result);
  else view.hide();
  if (picture?.state === "bad") tell(() => complaint(picture));
  drawStrip();
  drawFaces();
  showStatus();
  showTools();
}

const complaint = (picture) => text(picture.error.key, { name: picture.name, detail: picture.error.detail, ...limits });

function sentenceOf(picture) {
  const { name, state, result } = picture;
  if (state === "bad") return complaint(picture);
  if (state !== "done") return text(state, { name });
  return text(result.status === "ok" ? "found" : "no_face", { name, n: result.results.length, ms: result.milliseconds });
}

function showStatus() {
  for (const id of ["status", "readout"]) $(id).setAttribute("aria-live", live ? "off" : "polite"); // not every frame
  const sentence = () => {
    if (live) return live.result ? text("live", { n: live.result.results.length, fps: live.fps.toFixed(1) }) : text("cameraStarting");
    return !selected || selected.state === "bad" ? "" : sentenceOf(selected);
  };
  $("status").textContent = sentence();
}

/** A thumbnail, made once: a page of some hundred photographs would not bear them anew at every change. */
function makeItem(picture) {
  const item = document.createElement("li");
  const button = item.appendChild(document.createElement("button"));
  const image = button.appendChild(document.createElement("img"));
  [image.src, image.alt] = [picture.url, ""];
  image.addEventListener("error", () => image.remove()); // no picture, no thumbnail
  for (const kind of ["name", "count"]) button.appendChild(document.createElement("span")).className = kind;
  button.querySelector(".name").textContent = picture.name;
  button.addEventListener("click", () => {
    stopCamera();
    if (picture.error?.key === "lost") retry(picture);
    select(picture);
  });
  return item;
}

function drawStrip() {
  if (!pictures.length) $("strip").replaceChildren();
  for (const picture of pictures) {
    picture.item ??= $("strip").appendChild(makeItem(picture));
    const button = picture.item.firstChild;
    const count = { waiting: "…", working: "…", bad: "!", done: picture.result?.results.length }[picture.state];
    button.querySelector(".count").textContent = count;
    button.title = picture.state === "bad" ? complaint(picture) : picture.name;
    button.setAttribute("aria-label", sentenceOf(picture));
    button.classList.toggle("bad", picture.state === "bad");
    button.setAttribute("aria-current", picture === selected && !live);
  }
}

/** A button a face, to enlarge it. */
function drawFaces() {
  const count = view.faces.length;
  if ($("faces").childElementCount !== (count ? count + 1 : 0) || live === null) {
    const make = (number) => {
      const button = document.createElement("button");
      button.dataset.face = number;
      button.addEventListener("click", () => view.zoom(number));
      return button;
    };
    $("faces").replaceChildren(...(count ? [null, ...view.faces.keys()].map(make) : []));
  }
  showZoom(view.zoomed);
}

function showZoom(number) {
  for (const button of $("faces").children) {
    const own = button.dataset.face;
    button.textContent = own === "null" ? text("whole") : text("face", { n: +own + 1 });
    button.setAttribute("aria-pressed", own === String(number));
  }
}

function showReading(chosen) {
  const bold = document.createElement("b");
  if (!chosen) {
    $("reading").replaceChildren(text("hint"));
    return;
  }
  const face = view.faces[chosen.face];
  const { x, y, c } = face.points[chosen.index];
  const part = view.partOf[chosen.index];
  bold.textContent = `${chosen.index} · ${pointName(schema.names[chosen.index], part)}`;
  const sure = face.hollow.has(chosen.index) ? text("untaught") : `${text("confidence")} ${c.toFixed(2)}`;
  const place = `${text("face", { n: chosen.face + 1 })} · x ${x.toFixed(1)} · y ${y.toFixed(1)}`;
  $("reading").replaceChildren(bold, sure, document.createElement("br"), place);
  $("tip").replaceChildren(bold.cloneNode(true), sure);
}

function showTools() {
  const done = pictures.filter((p) => p.state === "done");
  for (const button of $("downloads").children) button.disabled = !current();
  $("whole").hidden = done.length < 2;
  $("clear").hidden = !pictures.length;
  $("keep").hidden = !live?.result;
  $("mirror").hidden = !live;
  $("camera").textContent = text(live ? "cameraStop" : "camera");
  $("camera").setAttribute("aria-pressed", Boolean(live));
}

// --- taking results home -------------------------------------------------------------------------------------------

/** What is shown: {name, result, source: what a canvas can draw}, or null. */
function current() {
  if (live) return live.result && { name: live.result.name, result: live.result, source: live.frame };
  return selected?.result && { name: selected.name, result: selected.result, source: view.picture };
}

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** A line a point. */
function csv(results) {
  const lines = ["image,face,index,name,part,x,y,confidence"];
  for (const result of results)
    result.results.forEach((entry, face) => {
      schema.names.forEach((name, i) => {
        const numbers = entry.keypoints.slice(3 * i, 3 * i + 3);
        lines.push([quoted(entry.image_id), face, i, name, view.partOf[i], ...numbers].join(","));
      });
    });
  return lines.join("\r\n") + "\r\n";
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const saveText = (content, type, name) => save(new Blob([content], { type }), name);
// The byte order mark lets spreadsheets read names of any script.
const saveCsv = (results, name) => saveText(`\ufeff${csv(results)}`, "text/csv;charset=utf-8", name);
const saveJson = (results, name) =>
  saveText(JSON.stringify(results.flatMap((r) => r.results)), "application/json", name);

async function download(kind) {
  const all = pictures.filter((p) => p.state === "done").map((p) => p.result);
  if (kind === "all-json") return saveJson(all, "alphapose-results.json");
  if (kind === "all-csv") return saveCsv(all, "landmarks.csv");
  const { name, result, source } = current();
  const stem = name.replace(/\.[^.]+$/, "");
  if (kind === "json") return saveJson([result], `${stem}.json`);
  if (kind === "csv") return saveCsv([result], `${stem}.csv`);
  const type = /\.(jpe?g|jfif)$/i.test(name) ? "image/jpeg" : "image/png";
  if (source === view.picture) await source.decode();
  const own = `${stem}-landmarks.${type === "image/jpeg" ? "jpg" : "png"}`;
  view.drawn(source).toBlob((blob) => (blob ? save(blob, own) : tell(() => text("tooLargeToDraw", { name }))), type, 0.95);
}

// --- the camera ----------------------------------------------------------------------------------------------------

async function startCamera() {
  before = selected;
  select(null);
  const fail = (key, detail) => {
    $("empty").hidden = true;
    tell(() => text(key, { detail }));
  };
  if (!navigator.mediaDevices?.getUserMedia) return fail("noCamera");
  $("empty").hidden = true;
  $("status").textContent = text("cameraStarting");
  const click = (asked = {});
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
  } catch (error) {
    if (click !== asked) return;
    stopCamera();
    return error.name === "NotAllowedError" ? fail("cameraRefused") : fail("cameraMissing", error.name);
  }
  if (click !== asked) return stream.getTracks().forEach((track) => track.stop()); // something else was chosen meanwhile
  const own = (live = { stream, frame: document.createElement("canvas"), result: null, fps: 0 });
  stream.getVideoTracks()[0].addEventListener("ended", () => own === live && leaveCamera());
  view.video.srcObject = stream;
  await view.video.play();
  showTools();
  await watch(own);
}

/** Frames one at a time: the next is taken when the last one's faces have come. */
async function watch(own) {
  const taken = document.createElement("canvas");
  while (own === live) {
    const start = performance.now();
    const { videoWidth, videoHeight } = view.video;
    const scale = Math.min(1, CAMERA_SIDE / Math.max(videoWidth, videoHeight, 1));
    [taken.width, taken.height] = [Math.round(videoWidth * scale) || 1, Math.round(videoHeight * scale) || 1];
    taken.getContext("2d").drawImage(view.video, 0, 0, taken.width, taken.height);
    const blob = await new Promise((done) => taken.toBlob(done, "image/jpeg", 0.92));
    try {
      const result = await findFaces(blob, "webcam.jpg");
      if (own !== live) return;
      Object.assign(own, { result, blob });
      [own.frame.width, own.frame.height] = [taken.width, taken.height];
      own.frame.getContext("2d").drawImage(taken, 0, 0);
      const fps = 1000 / (performance.now() - start);
      own.fps = own.fps ? 0.8 * own.fps + 0.2 * fps : fps;
      $("message").hidden = true;
      view.show(null, result);
      drawFaces();
      showStatus();
      showTools();
    } catch (error) {
      if (own !== live) return;
      const values = { name: "webcam", detail: error.detail ?? String(error), ...limits };
      tell(() => text(error.key ?? "other", values));
      await new Promise((done) => setTimeout(done, 1000));
    }
    await new Promise(requestAnimationFrame); // a page in the background sends nothing
  }
}

function stopCamera() {
  if (asked && !live) $("status").textContent = "";
  asked = null;
  if (!live) return;
  for (const track of live.stream.getTracks()) track.stop();
  live = null;
  view.video.srcObject = null;
  showTools();
}

/** Stop, and show what was shown before. */
function leaveCamera() {
  stopCamera();
  select(selected ?? (pictures.includes(before) ? before : (pictures.at(-1) ?? null)));
}

/** The last frame becomes a picture like the others, with the faces that were found on it. */
function keepFrame() {
  const name = unused(`webcam-${new Date().toISOString().replace(/\D/g, "").slice(0, 14)}.jpg`);
  const result = structuredClone(live.result);
  result.name = name;
  for (const entry of result.results) entry.image_id = name;
  pictures.push({ name, file: live.blob, url: URL.createObjectURL(live.blob), state: "done", result });
  drawStrip();
  showTools();
}

// --- wiring --------------------------------------------------------------------------------------------------------

function translate() {
  document.documentElement.lang = getLanguage() === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
  for (const label of $("parts").querySelectorAll("[data-name]")) label.textContent = partName(label.dataset.name);
  $("limits").textContent = text("limits", limits);
  setTheme(document.documentElement.dataset.theme === "dark");
  $("message").textContent = told();
  drawStrip();
  showStatus();
  showTools();
  showZoom(view.zoomed);
  showReading(view.chosen);
}

function makeParts() {
  for (const part of Object.keys(schema.parts)) {
    const label = $("parts").appendChild(document.createElement("label"));
    const box = Object.assign(document.createElement("input"), { type: "checkbox", name: part, checked: true });
    const chip = Object.assign(document.createElement("span"), { className: "chip" });
    const name = document.createElement("span");
    chip.style.background = view.colour(part);
    name.dataset.name = part;
    label.append(box, chip, name);
  }
}

function applyParts() {
  view.hidden = new Set([...$("parts").querySelectorAll("input")].filter((box) => !box.checked).map((box) => box.name));
  view.toggle();
}

/** What a person chose last time; storage may be switched off. */
const remember = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
    } catch {
      /* forgotten when the page closes */
    }
  },
};

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = text(dark ? "toLight" : "toDark");
}

makeParts();
setLanguage(remember.get("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
setTheme((remember.get("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark");
translate();

$("open").addEventListener("click", () => $("files").click());
$("empty").addEventListener("click", () => $("files").click());
$("files").accept = "image/*";
$("files").addEventListener("change", () => {
  add([...$("files").files]);
  $("files").value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? $("stage").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  add([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => add([...event.clipboardData.files]));
$("camera").addEventListener("click", () => {
  if (!live && !asked) return startCamera();
  leaveCamera();
});
$("keep").addEventListener("click", keepFrame);
$("clear").addEventListener("click", () => {
  for (const picture of pictures.splice(0)) URL.revokeObjectURL(picture.url);
  if (live) drawStrip(), showTools();
  else select(null);
});
$("language").addEventListener("click", () => {
  setLanguage(getLanguage() === "en" ? "zh" : "en");
  remember.set("language", getLanguage());
  translate();
});
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme !== "dark";
  remember.set("theme", dark ? "dark" : "light");
  setTheme(dark);
});
$("parts").addEventListener("change", applyParts);
for (const [id, checked] of [["all", true], ["none", false]])
  $(id).addEventListener("click", () => {
    for (const box of $("parts").querySelectorAll("input")) box.checked = checked;
    applyParts();
  });
$("shown").addEventListener("change", (event) => {
  view.shown[event.target.name] = event.target.checked;
  view.toggle();
  view.zoom(view.zoomed);
});
for (const button of document.querySelectorAll("[data-kind]")) button.addEventListener("click", () => download(button.dataset.kind));
document.documentElement.dataset.ready = "yes";
