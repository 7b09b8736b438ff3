"use strict";
/* Making elements. Whatever comes from the node goes into textContent, which is never read as markup. */

const byId = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeSvg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/* Only what has changed is written: a selection, the focus and a screen reader's place survive. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, level) {
  if (element.dataset.level !== level) element.dataset.level = level;
}

const MARKS = { ok: "✓", warn: "!", bad: "✕", info: "→", wait: "…" };

function fillBadge(cell, level, text, note) {
  if (!cell.firstChild) {
    const badge = make("span", "badge");
    const sign = make("span", "badge-mark");
    sign.setAttribute("aria-hidden", "true");
    badge.append(sign, make("span"));
    cell.append(badge, make("span", "cell-note"));
  }
  const [badge, remark] = cell.children;
  mark(badge, level);
  say(badge.children[0], MARKS[level] || "");
  say(badge.children[1], text);
  say(remark, note || "");
}

/* `share` is 0 to 1, or null where there is nothing to be a share of. */
function fillBar(cell, share, text, level) {
  if (!cell.firstChild) {
    const bar = make("span", "bar");
    bar.setAttribute("aria-hidden", "true");
    bar.append(make("span"));
    cell.append(bar, make("span"));
  }
  const [bar, words] = cell.children;
  bar.hidden = share === null;
  bar.firstChild.style.width = `${Math.min(100, Math.max(0, (share || 0) * 100)).toFixed(1)}%`;
  mark(bar, level || "");
  say(words, text);
}

/*
 * Brings the rows of a table body in line with `rows`, keeping those that stay.
 * A row is {key, level, cells}; a cell is a text, or {text, head, number, title, code}, {badge, text, note} or {share, text}.
 */
function fillRows(body, rows) {
  const present = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  rows.forEach((wanted, index) => {
    let row = present.get(wanted.key);
    if (!row || row.cells.length !== wanted.cells.length) {
      if (row) row.remove();
      row = make("tr");
      row.dataset.key = wanted.key;
      for (const cell of wanted.cells) {
        const element = make(cell.head ? "th" : "td", cell.number ? "number" : "");
        if (cell.head) element.scope = "row";
        row.append(element);
      }
    }
    present.delete(wanted.key);
    mark(row, wanted.level || "");
    wanted.cells.forEach((cell, column) => fillCell(row.cells[column], cell));
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] || null);
  });
  for (const row of present.values()) row.remove();
}

function fillCell(element, cell) {
  if (typeof cell !== "object") say(element, String(cell));
  else if (cell.badge !== undefined) fillBadge(element, cell.badge, cell.text, cell.note);
  else if (cell.share !== undefined) fillBar(element, cell.share, cell.text, cell.level);
  else {
    let target = element;
    if (cell.code) target = element.firstChild || element.appendChild(make("code"));
    say(target, cell.text);
    if (cell.title && element.title !== cell.title) element.title = cell.title;
  }
}

/* A region that scrolls sideways can be reached by keyboard, and one that does not is no stop on the way. */
function noteScrolling() {
  for (const region of document.querySelectorAll(".scroll")) {
    const scrolls = region.scrollWidth > region.clientWidth + 1;
    if (scrolls) region.tabIndex = 0;
    else region.removeAttribute("tabindex");
  }
}
