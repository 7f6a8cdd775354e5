// Edits and reverts of the table. Each is made for the revision that the page was drawn with: if
// another one is in force by now, nothing is changed and what that one changed is shown.
"use strict";

function said(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function problemsOf(told) {
  const lines = (told.problems ?? []).map((one) =>
    `line ${one.line}: ${one.key} = ${said(one.value)}: ${one.allowed}`);
  const changes = (told.difference ?? []).map((one) =>
    `${one.key}: ${said(one.before)} is ${said(one.after)} by now`);
  const owned = told.ours === undefined ? []
    : [`in force: ${said(told.ours)}`, `sent: ${said(told.theirs)}`];
  return [...lines, ...changes, ...owned];
}

async function send(form, method, path, body) {
  const place = form.querySelector("[role=status]");
  place.textContent = "asking";
  let told;
  try {
    const answer = await fetch(path, {
      method, body, headers: { "if-match": `"${form.dataset.revision}"` },
    });
    told = await answer.json();
    if (answer.ok && told.changed) {
      location.assign("/table");
      return;
    }
    told = answer.ok ? { error: "nothing would be different" } : told;
  } catch {
    told = { error: "the gateway does not answer" };
  }
  const list = document.createElement("ul");
  for (const line of problemsOf(told)) {
    list.append(Object.assign(document.createElement("li"), { textContent: line }));
  }
  place.replaceChildren(told.error, ...(list.childElementCount ? [list] : []));
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("form.change")) {
    // The reason stands behind the rules, so that problems name the lines as they are seen.
    const { rules, reason } = form.elements;
    send(form, "PUT", "/api/v1/table", `${rules.value}\nreason: ${JSON.stringify(reason.value)}\n`);
  } else if (form.matches("form.revert")) {
    const { revision, reason } = form.elements;
    send(form, "POST", `/api/v1/revisions/${revision.value}/revert`,
      JSON.stringify({ reason: reason.value }));
  } else {
    return;
  }
  event.preventDefault();
});
