// Adds requests on top of the log as they arrive. Paused by its button, and while nobody looks.
"use strict";

const EVERY_MS = 1500;
const MOST_ROWS = 500;
const live = document.querySelector(".live");

if (live) {
  const [button, status] = [live.querySelector("button"), live.querySelector("[role=status]")];
  let newest = live.dataset.newest;
  let isPaused = false;
  let arrived = 0;

  const say = (text) => { if (status.textContent !== text) status.textContent = text; };
  const tell = () => say(isPaused ? live.dataset.paused : arrived ? `${live.dataset.live}, ${live.dataset.arrived} ${arrived}` : live.dataset.live);

  async function look() {
    if (isPaused || document.hidden) return;
    const address = new URL(location.href);
    address.searchParams.set("after", newest);
    try {
      const response = await fetch(address, { headers: { Accept: "text/html" } });
      if (!response.ok || response.redirected) throw new Error(response.status);
      newest = response.headers.get("X-Newest");
      const body = document.querySelector("#requests tbody");
      const rows = document.createElement("tbody");
      rows.innerHTML = await response.text();
      const count = rows.rows.length;
      if (count && !body) location.reload();  // the first request of all: the page has no table yet
      if (count && body) {
        [...rows.rows].forEach((row) => row.classList.add("new"));
        body.prepend(...rows.rows);
        while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
        arrived += count;
      }
      tell();
    } catch {
      say(live.dataset.lost);
    }
  }

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", isPaused);
    tell();
    look();
  });
  live.hidden = false;
  tell();
  (async function goOn() {
    await look();
    setTimeout(goOn, EVERY_MS);
  })();
}
