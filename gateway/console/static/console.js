// Keeps the page fresh. Every two seconds, while the tab is visible, it asks for the state of the
// whole and for the page's JSON twin; when the twin has changed, the page is fetched anew and what
// differs is put in place. So everything is drawn once, by the server, except the state, which the
// supervisor answers even when the analyst, who draws the pages, is down.
"use strict";

const PERIOD_MS = 2000;
const TONES = { green: "good", yellow: "warning", red: "bad" };
const number = new Intl.NumberFormat("en");
let twinBefore = null; // null: the page may already be older than the twin's first answer
let running = false;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawPill(tone, words) {
  const pill = document.getElementById("state");
  const text = words.join("; ");
  if (pill.textContent !== text) pill.textContent = text;
  pill.className = `state ${tone}`;
}

function drawWhole(status) {
  const whole = document.getElementById("whole");
  if (whole === null) return;
  const journals = Object.values(status.governor?.journals ?? {});
  const figures = [
    ["leaves in the ledger", status.governor ? number.format(status.governor.leaves) : "–"],
    ["leaves the analyst is behind", status.analyst ? number.format(status.analyst.behind) : "–"],
    ["journals", number.format(journals.length)],
    ["revision", status.revision ? status.revision.slice(0, 12) : "none"],
  ].map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  });
  whole.querySelector(".figures").replaceChildren(...figures);
  const rows = Object.entries(status.processes).map(([role, process]) => {
    const row = element("tr");
    const state = element("td");
    state.append(element("span", process.running ? "running" : "down",
      { class: `state ${process.running ? "good" : "bad"}` }));
    row.append(element("th", role, { scope: "row" }), state,
      element("td", process.pid ?? "–", { class: "number" }),
      element("td", process.restarts, { class: "number" }));
    return row;
  });
  whole.querySelector("tbody").replaceChildren(...rows);
}

async function refreshState() {
  let status;
  try {
    const answer = await fetch("/api/v1/status");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    status = await answer.json();
  } catch {
    drawPill("bad", ["the gateway does not answer"]);
    document.querySelector("main").classList.add("gone");
    return;
  }
  document.querySelector("main").classList.remove("gone");
  drawPill(TONES[status.state] ?? "silent", [status.state, ...status.words]);
  drawWhole(status);
}

// What a reader points at, has focused or marked must not move away from them.
function isHeld() {
  const selection = document.getSelection();
  return document.querySelector("[data-hold]:hover, [data-hold]:focus-within") !== null ||
    (selection !== null && !selection.isCollapsed);
}

async function refreshPage() {
  const answer = await fetch(document.body.dataset.twin);
  if (!answer.ok) return;
  const twin = await answer.text();
  if (twin === twinBefore || isHeld()) return;
  const page = await fetch(location.href);
  if (!page.ok) return;
  const fresh = new DOMParser().parseFromString(await page.text(), "text/html");
  document.title = fresh.title;
  morph(document.querySelector("main"), fresh.querySelector("main"));
  twinBefore = twin;
}

function morph(was, now) {
  if (was.isEqualNode(now) || was.dataset?.own !== undefined) return;
  if (was.nodeType !== now.nodeType || was.nodeName !== now.nodeName) {
    was.replaceWith(now);
    return;
  }
  if (was.nodeType !== Node.ELEMENT_NODE) {
    was.data = now.data;
    return;
  }
  for (const { name } of [...was.attributes]) {
    if (!now.hasAttribute(name) && name !== "open") was.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) was.setAttribute(name, value);
  const before = [...was.childNodes];
  const after = [...now.childNodes];
  after.forEach((node, place) => {
    if (place < before.length) morph(before[place], node);
    else was.append(node);
  });
  for (const node of before.slice(after.length)) node.remove();
}

async function tick() {
  if (running || document.hidden) return;
  running = true;
  await Promise.allSettled([refreshState(), refreshPage()]);
  running = false;
}

document.addEventListener("visibilitychange", tick);
setInterval(tick, PERIOD_MS);
tick();
