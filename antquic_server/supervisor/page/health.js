"use strict";
/* What is well, what is not, and what has changed since the page was opened. */

const MAX_EVENTS = 30;
const REMEMBER_MS = 60000; /* How long a replaced worker is marked as such. */

/* The condition of one worker: {level, text, note}. */
function workerCondition(worker, endpoint, replacedAgo) {
  const age = worker.heartbeat_age_s;
  const timeout = asNumber(endpoint.heartbeat_timeout_s) || 1.5;
  const interval = asNumber(endpoint.heartbeat_interval_s) || 0.25;
  const note = replacedAgo === null ? "" : `replaced ${duration(replacedAgo)} ago`;
  switch (worker.state) {
    case "ready":
      if (isNumber(age) && age > timeout) return { level: "bad", text: "Frozen", note: `silent for ${digits(age)} s` };
      if (isNumber(age) && age > Math.max(3 * interval, timeout / 2)) {
        return { level: "warn", text: "Late", note: `silent for ${digits(age)} s` };
      }
      return { level: "ok", text: "Ready", note };
    case "assigned": case "starting": case "spare":
      return { level: "warn", text: "Starting", note };
    case "draining": return { level: "info", text: "Draining", note: "" };
    case "vacant": return { level: "bad", text: "No worker", note: "waiting for a process" };
    case "gone": return { level: "bad", text: "Ended", note: "" };
    default: return { level: "warn", text: words(asText(worker.state)), note: "" };
  }
}

/* The health of the node in one line: {level, text}. */
function nodeHealth(status, conditions) {
  const node = asObject(status.node);
  if (node.draining === true) return { level: "info", text: "Draining" };
  const trouble = asList(status.workers).filter((_, index) => conditions[index].level === "bad");
  if (node.healthy === true && !trouble.length) return { level: "ok", text: "Healthy" };
  if (node.healthy === true) return { level: "warn", text: `Worker ${trouble.map((each) => each.slot).join(", ")} silent` };
  const idle = asList(status.workers).filter((each) => each.state !== "ready").map((each) => each.slot);
  return { level: "bad", text: idle.length ? `${idle.length === 1 ? "Slot" : "Slots"} ${idle.join(", ")} not served` : "Not healthy" };
}

/* Notices replaced workers and keeps the list of events. */
class Watch {
  constructor() {
    this.workers = new Map();
    this.replaced = new Map();
    this.health = null;
  }

  forget() {
    this.workers.clear();
    this.replaced.clear();
  }

  look(status) {
    const reasons = asObject(status.totals);
    for (const worker of asList(status.workers)) {
      const before = this.workers.get(worker.slot);
      if (before && worker.restarts > before.restarts) {
        this.replaced.set(worker.slot, Date.now());
        const why = Object.keys(reasons).filter((key) => key.startsWith("worker_restarts|")
          && reasons[key] > asNumber(before.reasons[key])).map((key) => words(key.split("|")[1]));
        this.note("bad", `Worker ${worker.slot} lost (process ${asText(before.pid)}${why.length ? `, ${why.join(", ")}` : ""})`);
      }
      if (before && worker.pid !== before.pid && worker.pid !== null) {
        this.note("info", `Slot ${worker.slot} given to process ${worker.pid}`);
      }
      this.workers.set(worker.slot, { restarts: worker.restarts, pid: worker.pid, reasons });
    }
  }

  replacedAgo(slot) {
    const at = this.replaced.get(slot);
    const passed = Date.now() - at;
    return at === undefined || passed > REMEMBER_MS ? null : passed / 1000;
  }

  /* Shows the health of the node; the one thing on this page that is spoken when it changes. */
  tell(level, text) {
    const health = byId("health");
    mark(health, level);
    say(byId("health-mark"), MARKS[level]);
    say(byId("health-text"), text);
    const shortId = byId("short-id").textContent;
    const title = `${text} – ${shortId ? `${shortId} – ` : ""}antquic-server`;
    if (document.title !== title) document.title = title;
    if (this.health === text) return;
    if (this.health !== null && level !== "wait") this.note(level, text);
    this.health = text;
    say(byId("announce"), `Node: ${text}`);
    drawIcon(level);
  }

  note(level, text) {
    const item = make("li");
    const sign = make("span", "badge-mark", MARKS[level]);
    sign.setAttribute("aria-hidden", "true");
    item.append(make("time", "", clockTime(new Date())), sign, make("span", "", text));
    item.dataset.level = level;
    const list = byId("events");
    list.prepend(item);
    while (list.children.length > MAX_EVENTS) list.lastChild.remove();
    byId("events-box").hidden = false;
  }
}

function drawIcon(level) {
  const colour = { ok: "1a8f4c", warn: "c98500", bad: "d0342b", info: "2b74d8", wait: "7a8594" }[level];
  const shape = level === "ok" ? "%3Ccircle cx='8' cy='8' r='7'/%3E" : "%3Crect x='1' y='1' width='14' height='14' rx='2'/%3E";
  byId("icon").href = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%23${colour}'%3E${shape}%3C/svg%3E`;
}
