// Keeps the page up to date: requests it again every five seconds, one request at a time, and takes over what has changed.
// Without this script the page is complete, and shows the state at the time when it was loaded.
"use strict";
const INTERVAL_MS = 5_000;
const TIMEOUT_MS = 10_000;
const live = document.querySelector(".live");
const label = live.querySelector("span");
const pause = live.querySelector("button");
const lost = document.querySelector("#lost");
const said = document.querySelector("#said");
let paused = false;

const time = () => new Date().toISOString().slice(11, 19) + " UTC";

// Makes `from` equal to `to`. Keeps elements that stay, and with them the focus, a selection and what a user has opened.
function update(from, to) {
  if (from.isEqualNode(to)) return;
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) return from.replaceWith(to);
  if (from.nodeType === Node.TEXT_NODE) {
    from.data = to.data;
    return;
  }
  // A user may be writing in it.
  if (from.nodeName === "FORM") return;
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (name !== "open" && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  let next = from.firstChild;
  for (const node of [...to.childNodes]) {
    const same = node.id ? [...from.children].find((child) => child.id === node.id)
      : next && !next.id && next.nodeName === node.nodeName ? next : undefined;
    if (same && same === next) next = next.nextSibling;
    else from.insertBefore(same ?? node, next);
    if (same) update(same, node);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

async function refresh() {
  if (paused || document.hidden) return;
  try {
    const response = await fetch(location.href, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const next = new DOMParser().parseFromString(await response.text(), "text/html");
    if (paused) return;
    update(document.querySelector("main"), next.querySelector("main"));
    update(document.querySelector("footer"), next.querySelector("footer"));
    document.title = next.title;
    document.querySelector("link[rel=icon]").href = next.querySelector("link[rel=icon]").getAttribute("href");
    label.textContent = `live, ${time()}`;
    live.className = "live on";
    lost.textContent = "";
  } catch (error) {
    if (live.className !== "live lost") {
      label.textContent = `no answer since ${time()}`;
      lost.textContent = `The gateway does not answer (${error.message}). What this page shows is old.`;
    }
    live.className = "live lost";
  }
}

async function keepRefreshing() {
  await refresh();
  setTimeout(keepRefreshing, INTERVAL_MS);
}

// Opens what a link within the page leads to.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (const details of target?.querySelectorAll("details") ?? []) details.open = true;
}

// Copies the command beside a button. The clipboard's own interface is absent without TLS, and this one is not.
function copy(button) {
  getSelection().selectAllChildren(button.previousElementSibling);
  const text = button.firstChild;
  const before = text.data;
  text.data = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
  said.textContent = text.data;
  setTimeout(() => { text.data = before; said.textContent = ""; }, 2_000);
}

document.documentElement.classList.add("scripted");
document.addEventListener("click", ({ target }) => {
  const button = target.closest(".copy");
  if (button) copy(button);
  // The location changes after this event.
  else if (target.closest("a[href^='#']")) setTimeout(reveal);
});
addEventListener("hashchange", reveal);
reveal();

pause.hidden = false;
pause.onclick = () => {
  paused = !paused;
  pause.textContent = paused ? "Resume" : "Pause";
  if (paused) {
    label.textContent = `paused, ${time()}`;
    live.className = "live";
  } else {
    refresh();
  }
};
document.addEventListener("visibilitychange", refresh);
keepRefreshing();
