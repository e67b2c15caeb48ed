// The face of the first page. answers.js (see play.py) has the network's answer to every face that
// the sliders can make: nothing is computed here, and nothing is asked of a server.
const play = document.querySelector(".play");
const bytes = Uint8Array.from(atob(PLAY.records), (letter) => letter.charCodeAt(0));
const { turn, light, hand, brows, corners, jaw } = play.querySelector("form").elements;
const sliders = [turn, light, hand, brows, corners, jaw]; // in the order of PLAY.counts
const rows = [...play.querySelectorAll(".bars tr")];
const [said, met] = play.querySelectorAll("[role=status]");
const face = play.querySelector(".face").getContext("2d");
const seen = play.querySelector(".seen").getContext("2d");
const small = document.createElement("canvas").getContext("2d");
small.canvas.width = small.canvas.height = PLAY.heat;
const load = (name) => Object.assign(new Image(), { src: `_static/${name}.webp` });
const sprites = PLAY.yaws.map((_, number) => load(`face${number}`));
const palm = load("hand");

const WORDS = {
  turn: ["far to the left", "to the left", "to the front", "to the right", "far to the right"],
  light: ["from the left", "from the front", "from the right"],
};
const value = (slider) => (slider.type == "checkbox" ? +slider.checked : +slider.value);
const words = (slider) => (WORDS[slider.name] ?? ["0", "0.25", "0.5", "0.75", "1"])[value(slider)];

// The network's answer: its class, seven whole percentages, and its heat map from 0 to 15.
function answer() {
  const classes = PLAY.classes.length;
  const length = 1 + classes + PLAY.heat ** 2 / 2;
  const place = sliders.reduce((sum, slider, i) => sum * PLAY.counts[i] + value(slider), 0);
  const record = bytes.subarray(place * length, (place + 1) * length);
  const [best, ...percent] = record.subarray(0, 1 + classes);
  const heat = [...record.subarray(1 + classes)].flatMap((two) => [two >> 4, two & 15]);
  return { percent, heat, best, name: PLAY.classes[best], sure: percent[best] };
}

// The upper and the lower part of the picture come from two places of a sprite.
function drawFace() {
  const { side, cut, upper, lower } = PLAY;
  const top = value(light) * (upper + 5 * (side - lower));
  const part = (column, from, height, to) =>
    face.drawImage(sprites[value(turn)], column * side, from, side, height, 0, to, side, height);
  part(value(brows), top, cut, 0);
  const row = top + upper + value(corners) * (side - lower);
  part(value(jaw), row + cut - lower, side - cut, cut);
  if (hand.checked) face.drawImage(palm, (PLAY.yaws[value(turn)] * side) / 2, 0);
}

// The face, small and grey as the network sees it, and over it what speaks for the answer.
function drawSeen(heat) {
  const { width } = seen.canvas;
  seen.imageSmoothingQuality = "high";
  const pixels = small.createImageData(PLAY.heat, PLAY.heat);
  heat.forEach((level, i) => pixels.data.set([255, 120, 0, 14 * level], 4 * i));
  small.putImageData(pixels, 0, 0);
  seen.drawImage(face.canvas, 0, 0, width, width);
  seen.drawImage(small.canvas, 0, 0, width, width);
}

const CHALLENGES = {
  fear: (now) => now.name == "fear",
  smile: (now) => now.name != "happiness" && corners.value == 4 && brows.value == 0,
  turned: (now, state, before, last) =>
    now.best != last.best && state.slice(2).join() == before.slice(2).join(),
  covered: (now) => hand.checked && [brows, corners, jaw].every((slider) => slider.value == 0),
};

let before, last;
function update() {
  const now = answer();
  const state = sliders.map(value);
  drawFace();
  drawSeen(now.heat);
  now.percent.forEach((percent, i) => {
    rows[i].classList.toggle("best", i == now.best);
    rows[i].style.setProperty("--share", `${percent}%`);
    rows[i].cells[2].textContent = (percent / 100).toFixed(2);
  });
  for (const slider of sliders.filter((one) => one != hand)) {
    slider.setAttribute("aria-valuetext", words(slider));
    slider.parentElement.querySelector(".value").textContent = words(slider);
  }
  const units = [corners, brows, jaw].map((one) => `${one.dataset.is} ${words(one)}`).join(", ");
  const text =
    `A drawn face: ${units}, turned ${words(turn)}, light ${words(light)}` +
    (hand.checked ? ", a hand over the mouth." : ".");
  face.canvas.setAttribute("aria-label", text);
  said.textContent = `${now.name} ${(now.sure / 100).toFixed(2)}`;
  for (const [name, reached] of Object.entries(CHALLENGES)) {
    const item = play.querySelector(`[data-challenge=${name}]`);
    if (before && !item.classList.contains("done") && reached(now, state, before, last)) {
      item.classList.add("done");
      met.textContent = `Done: ${item.querySelector("span").textContent}`;
    }
  }
  [before, last] = [state, now];
}

// Drawn once now, a picture is at hand when a slider asks for it: unpacking takes its time.
async function unpack(image) {
  await image.decode();
  face.drawImage(image, 0, 0);
}

Promise.all([...sprites, palm].map(unpack)).then(() => {
  sliders.forEach((slider) => slider.addEventListener("input", update));
  play.querySelector("[type=reset]").addEventListener("click", () => setTimeout(update));
  update();
});
