// Runs once, when the page is there, after zip.js. `props.value` is the HTML that the page shows of the images, and
// `trigger` asks the server for it. Whatever was shown before goes as soon as another image is chosen, and an answer to
// an earlier choice that comes after that is not shown.

const BEAT = 2000; // milliseconds between two questions whether the server is there, and the longest wait for an answer
const KEPT = "result"; // the last answer, in this tab's sessionStorage, which ends with the tab
const TOO_LARGE = '<p class="soft">These results were too large to keep: choose the images again.</p>';

let asked = 0; // number of the latest choice
let pending = null; // the event and data of a choice that has no answer yet
let latest = ""; // what the page shows of it
let urls = []; // of its images

function show(html) {
  latest = html;
  props.value = html;
}

function ask(event, data) {
  pending = [event, { asked, ...data }];
  trigger(...pending);
}

// The value is read, not the page, which may still show an answer that another one has just replaced. Answers need not
// come in the order of their choices.
watch("value", () => {
  const shown = document.createElement("template");
  shown.innerHTML = props.value ?? "";
  const answer = shown.content.querySelector("[data-asked]");
  if (!answer) return;
  if (Number(answer.dataset.asked) !== asked) return (props.value = latest);
  latest = props.value;
  pending = null;
  keep(answer);
});

// An answer that exceeds the tab's storage is kept without its downloads, or else only that there was one.
function keep(answer) {
  const light = answer.cloneNode(true);
  light.querySelectorAll(".downloads").forEach((part) => (part.outerHTML = TOO_LARGE.replace("results", "downloads")));
  for (const html of [answer.innerHTML, light.innerHTML, TOO_LARGE]) {
    try {
      return sessionStorage.setItem(KEPT, JSON.stringify({ model: props.model, html }));
    } catch {} // too large
  }
}

function restore() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  if (kept.model === props.model) show(kept.html);
}

function escaped(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  return paragraph.innerHTML.replaceAll('"', "&quot;");
}

function waiting(images) {
  sessionStorage.removeItem(KEPT);
  const figures = images.map(
    ([name, url]) => `<figure><img alt="" src="${escaped(url)}"><figcaption>${escaped(name)}</figcaption></figure>`,
  );
  show(`<section class="waiting"><p role="status">Predicting…</p>
    <div class="gallery">${figures.join("")}</div></section>`);
}

function problem(text) {
  sessionStorage.removeItem(KEPT);
  pending = null;
  show(`<p class="problem" role="alert"><b>${escaped(text)}</b></p>`);
}

function inBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1] ?? "");
    reader.onerror = () => reject(new Error(`${file.name} cannot be read. Choose it again.`));
    reader.readAsDataURL(file);
  });
}

async function send(files) {
  const number = ++asked;
  const megabytes = files.reduce((sum, file) => sum + file.size, 0) / 1e6;
  if (megabytes > props.megabytes) {
    const what = files.length === 1 ? `${files[0].name} has` : `The ${files.length} files together have`;
    return problem(
      `${what} ${megabytes.toFixed(1)} MB; the limit is ${props.megabytes} MB. Choose fewer or smaller files.`,
    );
  }
  urls.forEach(URL.revokeObjectURL);
  urls = files.map(URL.createObjectURL);
  waiting(files.map((file, i) => [file.name, urls[i]]));
  try {
    const contents = await Promise.all(files.map(inBase64));
    if (number !== asked) return; // another choice came while these were read
    ask("upload", { files: files.map((file, i) => ({ name: file.name, content: contents[i] })) });
  } catch (error) {
    if (number === asked) problem(error.message);
  }
}

// Whether the server is there: it answers with the number of its start.
async function beat() {
  let server = "";
  try {
    const response = await fetch("alive", { cache: "no-store", signal: AbortSignal.timeout(BEAT) });
    if (response.ok) server = await response.text();
  } catch {} // none
  notice(server);
  setTimeout(beat, BEAT);
}

function notice(server) {
  const isBack = server === props.server && document.body.classList.contains("down");
  const others = server ? "The server was restarted. Reload this page." : "The server does not answer. Is app.py running?";
  const line = document.querySelector("#notice"), text = server === props.server ? "" : others;
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
  document.body.classList.toggle("down", Boolean(text));
  if (isBack && pending) trigger(...pending); // its answer may have been lost
}

async function download(links) {
  const contents = links.map(async (link) => {
    const response = await fetch(link.href);
    return [link.dataset.path, new Uint8Array(await response.arrayBuffer())];
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(zipped(await Promise.all(contents)));
  link.download = "predictions.zip";
  link.click();
  setTimeout(URL.revokeObjectURL, 60000, link.href);
}

function enlarge(button) {
  const dialog = document.querySelector("#zoom"), figure = dialog.querySelector("figure");
  const { naturalWidth, naturalHeight } = button.querySelector("img");
  figure.style.cssText = `${button.closest("figure").style.cssText}; --ratio: ${naturalWidth / naturalHeight}`;
  dialog.querySelector(".pane").replaceChildren(button.querySelector(".layers").cloneNode(true));
  dialog.querySelector("input").value = 100;
  dialog.showModal();
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches(".drop input") || !target.files.length) return;
  const files = [...target.files];
  target.value = ""; // or the same file, chosen once more, would not be a change
  send(files);
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave the page for the file
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) send([...event.dataTransfer.files]);
});
document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) send([...clipboardData.files]);
});

function choose(example) {
  asked += 1;
  waiting([[example.title, example.querySelector("img").src]]);
  ask("select", { index: Number(example.dataset.example) });
}

const ON_CLICK = {
  "[data-example]": choose,
  "[data-zips]": () => download([...element.querySelectorAll("[data-path]")]),
  ".zoom": enlarge,
  "[data-closes]": () => document.querySelector("#zoom").close(),
};

document.addEventListener("click", ({ target }) => {
  for (const [selector, act] of Object.entries(ON_CLICK)) {
    const clicked = target.closest(selector);
    if (clicked) act(clicked);
  }
});

document.addEventListener("input", ({ target }) => {
  if (!target.dataset.layer) return;
  const share = target.type === "checkbox" ? Number(target.checked) : target.value / 100;
  target.closest("figure").style.setProperty(`--${target.dataset.layer}`, share);
});

restore();
beat();
