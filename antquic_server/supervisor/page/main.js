"use strict";
/* Asks the node once a second and shows what it says; when it says nothing, shows that, and asks again. */

const POLL_MS = 1000;
const PATIENCE_MS = 4000;

const charts = CHARTS.map((plan) => new Chart(plan, byId("chart-grid")));
const recent = new Recent();
const watch = new Watch();
const settingsPanel = new SettingsPanel();
const view = { history: null, heardAt: null, answeredAt: 0, paused: false, timer: 0, asking: false };

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!response.ok) throw new Error(`It answers with status ${response.status}.`);
  return response.json();
}

function emptyHistory() {
  const columns = CHARTS.flatMap((chart) => chart.series.map((series) => series.column));
  return Object.fromEntries(["t_s", ...columns].map((name) => [name, []]));
}

/* Adds what is new to what is known, and forgets what has left the charts. */
function join(known, fresh) {
  const times = known.t_s.concat(asList(fresh.t_s));
  const oldest = times.length ? times[times.length - 1] - LONGEST_S : 0;
  const from = times.findIndex((time) => time >= oldest);
  return Object.fromEntries(Object.keys(known).map((name) =>
    [name, known[name].concat(asList(fresh[name])).slice(Math.max(0, from))]));
}

/* The status and the interval of the history, which is brought up to date; throws what `ask` throws. */
async function look() {
  const known = view.history ? view.history.t_s.at(-1) ?? 0 : 0;
  const [status, fresh] = await Promise.all([ask("/status"), ask(`/history?after=${known}`)]);
  /* A process younger than its last answer is another one, even if it has the same number, as in containers. */
  const passed = (performance.now() - view.answeredAt) / 1000;
  const restarted = view.history !== null && asObject(status.node).uptime_s < passed;
  view.answeredAt = performance.now();
  if (restarted) {
    watch.note("info", "The node was restarted");
    watch.forget();
    recent.forget();
  }
  /* What came after the end of another clock is not all there is. */
  const whole = restarted ? await ask("/history") : fresh;
  view.history = join(restarted || !view.history ? emptyHistory() : view.history, whole);
  return { status, interval: asNumber(whole.interval_s) || 1 };
}

function show(status, interval) {
  view.heardAt = new Date();
  const totals = asObject(status.totals);
  const endpoint = asObject(asObject(status.configuration).endpoint);
  recent.add(totals);
  watch.look(status);
  const conditions = asList(status.workers).map((worker) => workerCondition(worker, endpoint, watch.replacedAgo(worker.slot)));
  showNode(status);
  const health = nodeHealth(status, conditions);
  watch.tell(health.level, health.text);
  byId("offline").hidden = true;
  document.documentElement.classList.remove("is-stale");
  const notes = { connections: `at most ${count(endpoint.max_connections)}`,
    handshakes: `${count(asNumber(totals.handshakes_in_flight))} under way`, lag: "of all processes" };
  const span = spanFor(view.history.t_s);
  say(byId("span"), span.words);
  for (const chart of charts) chart.draw(view.history, span, interval, notes[chart.plan.id]);
  showWorkers(status, conditions);
  showPunches(status);
  showRelay(status, recent, view.history);
  showRefusals(status, recent);
  showTalkers(status);
  settingsPanel.show(status);
  say(byId("updated"), `Updated ${clockTime(view.heardAt)}`);
  noteScrolling();
}

function showTrouble(title, why) {
  const last = view.heardAt
    ? `Its last answer came at ${clockTime(view.heardAt)}; everything below is as it was then.` : "It has not answered yet.";
  say(byId("offline-title"), title);
  say(byId("offline-text"), `${last} ${why} Trying again every second.`);
  byId("offline").hidden = false;
  document.documentElement.classList.add("is-stale");
}

async function poll() {
  clearTimeout(view.timer);
  if (view.asking) return;
  view.asking = true;
  const startedAt = performance.now();
  try {
    await lookAndShow();
  } finally {
    view.asking = false;
  }
  if (!view.paused && !document.hidden) {
    view.timer = setTimeout(poll, Math.max(POLL_MS / 4, POLL_MS - (performance.now() - startedAt)));
  }
}

async function lookAndShow() {
  let found;
  try {
    found = await look();
  } catch (error) {
    showTrouble("Disconnected from the node.", error.message.startsWith("It answers") ? error.message : "");
    watch.tell("bad", "Disconnected");
    return;
  }
  try {
    show(found.status, found.interval);
  } catch (error) {
    /* Not the node's fault, and nobody shall take it for that. */
    console.error(error);
    showTrouble("This page cannot show what the node says.", `${error.name}: ${error.message}.`);
    watch.tell("warn", "Page broken");
  }
}

byId("pause").addEventListener("click", () => {
  view.paused = !view.paused;
  byId("pause").setAttribute("aria-pressed", String(view.paused));
  if (view.paused) {
    clearTimeout(view.timer);
    say(byId("updated"), view.heardAt ? `Paused at ${clockTime(view.heardAt)}` : "Paused");
  } else poll();
});

byId("copy").addEventListener("click", async () => {
  const text = byId("peer-id").textContent;
  try {
    await navigator.clipboard.writeText(text);
    say(byId("copy"), "Copied");
  } catch {
    /* Not every address is one that browsers trust with the clipboard. */
    getSelection().selectAllChildren(byId("peer-id"));
    say(byId("copy"), "Selected");
  }
  setTimeout(() => say(byId("copy"), "Copy"), 2000);
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !view.paused) poll();
});
addEventListener("resize", noteScrolling);
poll();
