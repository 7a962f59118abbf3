// Shows what each pasted line is before the keys are added. The first click on the button only loads this preview.
"use strict";

const PAUSE_MS = 400;
const READ_MS = 500;  // a click just as the preview appears was meant for the button before it
const preview = document.querySelector(".paste");

if (preview) {
  const form = preview.closest("form");
  const { secrets, project_name: project, _save: save } = form.elements;
  const [summary, lines] = [preview.querySelector(".summary"), preview.querySelector(".lines")];
  const leftOut = Object.assign(document.createElement("input"), { type: "hidden", name: "left_out" });
  const label = save.value;
  let isShown = false;
  let timer;
  let enableTimer;
  let pending = new AbortController();

  function reset() {
    clearTimeout(timer);
    clearTimeout(enableTimer);
    pending.abort();
    save.disabled = false;
    isShown = false;
    leftOut.value = "";
    save.value = label;
  }

  async function loadPreview() {
    reset();
    pending = new AbortController();
    const { signal } = pending;
    try {
      const response = await fetch(preview.dataset.address, { method: "POST", body: new FormData(form), signal });
      if (!response.ok || response.redirected) throw new Error(response.status);
      const found = await response.json();
      summary.textContent = found.summary;
      lines.innerHTML = found.lines;
      leftOut.value = found.left_out;
      save.value = found.button || label;
    } catch {
      if (signal.aborted) return;
      summary.textContent = preview.dataset.lost;
      lines.replaceChildren();
    }
    isShown = true;
    save.disabled = true;
    enableTimer = setTimeout(() => { save.disabled = false; }, READ_MS);
  }

  function loadPreviewSoon() {
    reset();
    timer = setTimeout(loadPreview, PAUSE_MS);
  }

  secrets.addEventListener("input", loadPreviewSoon);
  project.addEventListener("input", loadPreviewSoon);
  preview.querySelector("button").addEventListener("click", loadPreview);
  form.addEventListener("submit", (event) => {
    if (isShown || !secrets.value.trim()) return;
    event.preventDefault();
    loadPreview();
  });
  form.append(leftOut);
  secrets.closest(".form-row").append(preview);
  preview.hidden = false;
  if (secrets.value) loadPreview();
}
