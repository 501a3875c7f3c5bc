// Runs once, when the page is there. `props.value` is the HTML that the page shows of the images, and `trigger` asks
// the server for it. Whatever was shown before goes as soon as another image is chosen, and an answer to an earlier
// choice that comes after that is not shown.

let asked = 0; // number of the latest choice
let latest = ""; // what the page has shown of it by itself
let urls = []; // of its images

function show(html) {
  latest = html;
  props.value = html;
}

watch("value", () => {
  const answer = element.querySelector("[data-asked]");
  if (answer && Number(answer.dataset.asked) !== asked) props.value = latest;
});

function escaped(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  return paragraph.innerHTML.replaceAll('"', "&quot;");
}

function waiting(images) {
  const figures = images.map(
    ([name, url]) => `<figure><img alt="" src="${escaped(url)}"><figcaption>${escaped(name)}</figcaption></figure>`,
  );
  show(`<section class="waiting"><p role="status">Predicting…</p>
    <div class="gallery">${figures.join("")}</div></section>`);
}

function problem(text) {
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
    trigger("upload", { asked, files: files.map((file, i) => ({ name: file.name, content: contents[i] })) });
  } catch (error) {
    if (number === asked) problem(error.message);
  }
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches(".drop input") || !target.files.length) return;
  const files = [...target.files];
  target.value = ""; // or the same file, chosen once more, would not be a change
  send(files);
});

document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave the page for the file
  if (event.dataTransfer.files.length) send([...event.dataTransfer.files]);
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-example]");
  if (!button) return;
  asked += 1;
  waiting([[button.title, button.querySelector("img").src]]);
  trigger("select", { asked, index: Number(button.dataset.example) });
});

document.addEventListener("input", ({ target }) => {
  if (!target.dataset.layer) return;
  const opacity = target.type === "checkbox" ? Number(target.checked) : target.value / 100;
  target.closest("figure").style.setProperty(`--${target.dataset.layer}`, opacity);
});
