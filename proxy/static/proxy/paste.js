// Says what pasted keys are, line by line, before they are added. The first press on the button only shows that.
"use strict";

const PAUSE_MS = 400;
const READ_MS = 500;  // who presses the button just when the preview comes has not read it
const preview = document.querySelector(".paste");

if (preview) {
  const form = preview.closest("form");
  const { secrets, project_name: project, _save: save } = form.elements;
  const [told, lines] = [preview.querySelector(".told"), preview.querySelector(".lines")];
  const leftOut = Object.assign(document.createElement("input"), { type: "hidden", name: "left_out" });
  const word = save.value;
  let isShown = false;
  let timer;
  let rest;
  let asked = new AbortController();

  function forget() {
    clearTimeout(timer);
    clearTimeout(rest);
    asked.abort();
    save.disabled = false;
    isShown = false;
    leftOut.value = "";
    save.value = word;
  }

  async function look() {
    forget();
    asked = new AbortController();
    const { signal } = asked;
    try {
      const response = await fetch(preview.dataset.address, { method: "POST", body: new FormData(form), signal });
      if (!response.ok || response.redirected) throw new Error(response.status);
      const found = await response.json();
      told.textContent = found.told;
      lines.innerHTML = found.lines;
      leftOut.value = found.left_out;
      save.value = found.button || word;
    } catch {
      if (signal.aborted) return;
      told.textContent = preview.dataset.lost;
      lines.replaceChildren();
    }
    isShown = true;
    save.disabled = true;
    rest = setTimeout(() => { save.disabled = false; }, READ_MS);
  }

  function lookSoon() {
    forget();
    timer = setTimeout(look, PAUSE_MS);
  }

  secrets.addEventListener("input", lookSoon);
  project.addEventListener("input", lookSoon);
  preview.querySelector("button").addEventListener("click", look);
  form.addEventListener("submit", (event) => {
    if (isShown || !secrets.value.trim()) return;
    event.preventDefault();
    look();
  });
  form.append(leftOut);
  secrets.closest(".form-row").append(preview);
  preview.hidden = false;
  if (secrets.value) look();
}
