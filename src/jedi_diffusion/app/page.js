// Control or Command with Enter does what the button does.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.querySelector("#generate")?.click();
  }
}, true);
// Gradio calls pictures "Thumbnail 1 of 8": their names are their captions.
const name = () => {
  for (const button of document.querySelectorAll(".thumbnail-lg, .upload-container")) {
    const said = (button.querySelector(".caption-label") ?? button).textContent.replace(/\s+/g, " ").trim();
    if (said && button.ariaLabel !== said) button.ariaLabel = said;
  }
};
new MutationObserver(name).observe(document, {childList: true, subtree: true, characterData: true});

// The brush over a photo. The server keeps masks: it gets strokes, and says up to which number it has drawn them.
const VEIL = 0.6;
const brush = {photo: "", painted: 0, number: 0, waiting: [], stroke: null, at: [0.5, 0.5], shown: null, images: []};
const canvas = () => document.querySelector("#brush");
const radius = () => Number(document.querySelector("#brush-size input[type=range]")?.value ?? 8) / 200;
const erases = () => document.querySelector("#brush-does input:checked")?.value !== "read";

const drawStroke = (context, {points, radius, erase}) => {
  const {width, height} = context.canvas, wide = radius * Math.max(width, height);
  context.globalCompositeOperation = erase ? "source-over" : "destination-out";
  context.fillStyle = context.strokeStyle = "#e5484d";
  context.lineWidth = 2 * wide;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.arc(points[0][0] * width, points[0][1] * height, wide, 0, 2 * Math.PI);
  context.fill();
  context.beginPath();
  points.forEach(([x, y]) => context.lineTo(x * width, y * height));
  context.stroke();
};

const draw = () => {
  const [photo, veil] = brush.images, over = canvas();
  if (!photo || !over) return;
  over.width = photo.naturalWidth;
  over.height = photo.naturalHeight;
  const film = document.createElement("canvas").getContext("2d");
  film.canvas.width = over.width;
  film.canvas.height = over.height;
  const fresh = brush.stroke ? [...brush.waiting, brush.stroke] : brush.waiting;
  if (veil) film.drawImage(veil, 0, 0, over.width, over.height);
  else if (fresh.length && !fresh[0].erase) {
    film.fillStyle = "#e5484d";
    film.fillRect(0, 0, over.width, over.height);
  }
  fresh.forEach((each) => drawStroke(film, each));
  const context = over.getContext("2d");
  context.drawImage(photo, 0, 0);
  context.globalAlpha = VEIL;
  context.drawImage(film.canvas, 0, 0);
  context.globalAlpha = 1;
  if (document.activeElement === over) {
    context.lineWidth = 2;
    context.strokeStyle = "#ffffff";
    const [x, y] = brush.at, wide = radius() * Math.max(over.width, over.height);
    for (const [color, size] of [["#000000", wide + 2], ["#ffffff", wide]]) {
      context.strokeStyle = color;
      context.beginPath();
      context.arc(x * over.width, y * over.height, size, 0, 2 * Math.PI);
      context.stroke();
    }
  }
};

const show = async () => {
  const shown = document.querySelector("#brushed [data-photo]");
  if (!shown || shown === brush.shown) return;
  brush.shown = shown;
  const images = [...shown.querySelectorAll("img")];
  await Promise.all(images.map((each) => each.decode().catch(() => {})));
  if (brush.shown !== shown) return;
  const {photo, painted} = shown.dataset;
  if (photo !== brush.photo) Object.assign(brush, {photo, waiting: [], stroke: null, at: [0.5, 0.5]});
  brush.painted = Number(painted);
  brush.number = Math.max(brush.number, brush.painted);
  brush.waiting = brush.waiting.filter((each) => each.number > brush.painted);
  brush.images = images;
  draw();
};
new MutationObserver(show).observe(document, {childList: true, subtree: true, attributes: true, attributeFilter: ["src"]});

const send = () => {
  const field = document.querySelector("#strokes textarea, #strokes input");
  if (!brush.stroke || !field) return;
  brush.waiting.push(brush.stroke);
  brush.stroke = null;
  field.value = JSON.stringify(brush.waiting.slice(0, 100));
  field.dispatchEvent(new Event("input", {bubbles: true}));
};
const begin = () => {
  brush.stroke = {photo: brush.photo, number: ++brush.number, radius: radius(), erase: erases(), points: [brush.at]};
  draw();
};
const move = (point) => {
  brush.at = point.map((each) => Math.round(10000 * Math.min(1, Math.max(0, each))) / 10000);
  if (brush.stroke && brush.stroke.points.length < 2000) brush.stroke.points.push(brush.at);
  draw();
};
const place = (event) => {
  const box = canvas().getBoundingClientRect();
  return [(event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height];
};
document.addEventListener("pointerdown", (event) => {
  if (event.target.id !== "brush" || event.button) return;
  event.target.setPointerCapture(event.pointerId);
  event.target.focus();
  event.preventDefault();
  move(place(event));
  begin();
});
document.addEventListener("pointermove", (event) => {
  if (event.target.id === "brush" && brush.images.length) move(place(event));
});
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, send);
document.addEventListener("keydown", (event) => {
  if (event.target.id !== "brush") return;
  const step = radius(), across = {ArrowLeft: -step, ArrowRight: step}, down = {ArrowUp: -step, ArrowDown: step};
  const {width, height} = event.target, long = Math.max(width, height);
  if (event.key in across || event.key in down) {
    const [x, y] = brush.at;
    move([x + (across[event.key] ?? 0) * long / width, y + (down[event.key] ?? 0) * long / height]);
  } else if (event.key === " ") {
    if (!brush.stroke) begin();
  } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
    document.querySelector("#undo")?.click();
  } else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") send();
});
for (const happens of ["focusin", "focusout"]) document.addEventListener(happens, (event) => {
  if (event.target.id !== "brush") return;
  if (happens === "focusout") send();
  draw();
});
