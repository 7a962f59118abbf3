// Adds new requests to the top of the log. Pauses when its button is pressed, and while the page is hidden.
"use strict";

const EVERY_MS = 1500;
const MOST_ROWS = 500;
const live = document.querySelector(".live");

if (live) {
  const [button, status] = [live.querySelector("button"), live.querySelector("[role=status]")];
  let newest = live.dataset.newest;
  let isPaused = false;
  let arrived = 0;

  function show(text) {
    if (status.textContent !== text) status.textContent = text;
  }

  function showStatus() {
    const counted = arrived ? `${live.dataset.live}, ${live.dataset.arrived} ${arrived}` : live.dataset.live;
    show(isPaused ? live.dataset.paused : counted);
  }

  async function update() {
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
      if (count && !body) location.reload();  // the first request ever: the page has no table yet
      if (count && body) {
        [...rows.rows].forEach((row) => row.classList.add("new"));
        body.prepend(...rows.rows);
        while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
        arrived += count;
      }
      showStatus();
    } catch {
      show(live.dataset.lost);
    }
  }

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", isPaused);
    showStatus();
    update();
  });
  live.hidden = false;
  showStatus();
  (async function poll() {
    await update();
    setTimeout(poll, EVERY_MS);
  })();
}
