"use strict";
/* The parts of the page below the charts, each from the part of /status of the same name. */

const RECENT_MS = 10000;
const MODES = ["channel", "stream"];

/* Totals of the last seconds, for rates of whatever the node counts. */
class Recent {
  constructor() { this.kept = []; }

  forget() { this.kept = []; }

  add(totals) {
    this.kept.push({ at: performance.now(), totals });
    while (this.kept.length > 2 && this.kept[1].at < performance.now() - RECENT_MS) this.kept.shift();
  }

  /* Growth since the oldest look, and per second. */
  grown(key) {
    const [first, last] = [this.kept[0], this.kept[this.kept.length - 1]];
    if (!first || first === last) return { by: 0, rate: 0 };
    const by = Math.max(0, asNumber(last.totals[key]) - asNumber(first.totals[key]));
    return { by, rate: by / ((last.at - first.at) / 1000) };
  }
}

function showNode(status) {
  const node = asObject(status.node);
  const totals = asObject(status.totals);
  const directory = asObject(status.directory);
  say(byId("peer-id"), asText(node.peer_id));
  say(byId("short-id"), node.peer_id ? String(node.peer_id).slice(0, 8) : "");
  const endpoint = asObject(asObject(status.configuration).endpoint);
  const open = `${count(totals.active_connections ?? 0)} of ${count(endpoint.max_connections)}`;
  const facts = [
    ["Version", asText(node.version)],
    ["Uptime", duration(node.uptime_s)],
    ["Connections", open],
    ["Peers known", count(directory.peers)],
    ["Listens on", asList(node.listen).join("\n") || NOTHING, true],
    ["Post-quantum provider", asText(node.pqc_provider)],
    ["Kernel steering", node.steered === true ? "on" : "off"],
    ["Process", asText(node.pid)],
  ];
  const list = byId("facts");
  if (!list.children.length) {
    for (const [name, , wide] of facts) {
      const box = make("div", wide ? "wide" : "");
      box.append(make("dt", "", name), make("dd"));
      list.append(box);
    }
  }
  facts.forEach(([, value], index) => say(list.children[index].lastChild, value.replaceAll("\n", ", ")));
}

function showWorkers(status, conditions) {
  const workers = asList(status.workers);
  fillRows(byId("worker-table").tBodies[0], workers.map((worker, index) => {
    const { level, text, note } = conditions[index];
    const cpu = worker.cpu_percent;
    return { key: String(worker.slot), level, cells: [
      { head: true, text: `Worker ${asText(worker.slot)}` },
      { badge: level, text, note },
      { number: true, text: asText(worker.pid) },
      { number: true, text: count(worker.connections) },
      { share: isNumber(cpu) ? cpu / 100 : null, text: isNumber(cpu) ? `${cpu.toFixed(1)} %` : NOTHING,
        level: cpu > 90 ? "bad" : cpu > 70 ? "warn" : "" },
      { number: true, text: size(worker.rss_bytes) },
      { number: true, text: milliseconds(worker.loop_lag_s) },
      { number: true, text: isNumber(worker.heartbeat_age_s) ? `${milliseconds(worker.heartbeat_age_s)} ago` : NOTHING },
      { number: true, text: count(worker.restarts) },
    ] };
  }));
  const ready = conditions.filter((each) => each.level === "ok").length;
  say(byId("workers-aside"), `${ready} of ${workers.length} ready`);
  const spares = asList(status.spares);
  const listed = spares.map((each) => `process ${asText(each.pid)} ${each.state === "spare" ? "ready" : words(asText(each.state))}`);
  say(byId("spares"), `Spares to take over a slot: ${listed.join(", ") || "none"}`);
}

const NAT_WORDS = { unknown: "not observed", endpoint_independent: "endpoint independent", dependent: "dependent (symmetric)" };
const natWords = (name) => (Object.hasOwn(NAT_WORDS, name) ? NAT_WORDS[name] : words(asText(name)));

function showPunches(status) {
  const punches = status.punches;
  const known = punches !== null && typeof punches === "object";
  const good = asNumber(asObject(punches).successful);
  const all = good + asNumber(asObject(punches).failed);
  const pairs = asList(asObject(punches).by_nat_pair);
  let summary = "This node does not report hole punches.";
  if (known) summary = all ? `${count(good)} of ${count(all)} hole punches succeeded (${percent(good / all)}).` : "No peers have punched a hole yet.";
  const untold = asNumber(asObject(punches).unknown);
  if (untold) summary += ` The outcome of ${plural(untold, "more is", "more are")} not known.`;
  say(byId("punches-summary"), summary);
  byId("punches-box").hidden = !pairs.length;
  if (pairs.length) showMatrix(pairs);
  showPaths(asObject(asObject(status.relay).introductions));
}

function showMatrix(pairs) {
  const order = Object.keys(NAT_WORDS);
  const place = (name) => (order.indexOf(name) + 1 || order.length + 1);
  const sorted = (side) => [...new Set(pairs.map((pair) => String(pair[side])))].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  const [rows, columns] = [sorted("initiator"), sorted("target")];
  const head = byId("punches-head");
  const names = ["Initiator ↓ Target →", ...columns.map(natWords)];
  if (head.textContent !== names.join("")) {
    const row = make("tr");
    for (const name of names) {
      const cell = make("th", "", name);
      cell.scope = "col";
      row.append(cell);
    }
    head.replaceChildren(row);
  }
  const body = byId("punches-body");
  fillRows(body, rows.map((row) => ({ key: row, cells: [{ head: true, text: natWords(row) }, ...columns.map(() => ({ keep: true, text: "" }))] })));
  rows.forEach((row, down) => columns.forEach((column, across) => {
    const pair = pairs.find((each) => String(each.initiator) === row && String(each.target) === column);
    fillHeat(body.rows[down].cells[across + 1], pair);
  }));
}

function fillHeat(cell, pair) {
  if (!cell.firstElementChild) cell.replaceChildren(make("strong"), make("span"));
  const [share, figures] = cell.children;
  const good = asNumber(asObject(pair).successful);
  const all = good + asNumber(asObject(pair).failed);
  mark(cell, !all ? "" : good / all >= 0.8 ? "ok" : good / all >= 0.4 ? "warn" : "bad");
  say(share, all ? percent(good / all) : NOTHING);
  say(figures, all ? `${count(good)} of ${count(all)}` : "none yet");
}

function showPaths(introductions) {
  const direct = asNumber(introductions.direct);
  const relayed = asNumber(introductions.relayed);
  const all = direct + relayed;
  const box = byId("paths");
  const [meter, bar] = meterIn(box, 0, 2);
  const tell = (name, value) => `${name} ${count(value)}${all ? ` (${percent(value / all)})` : ""}`;
  say(meter.children[0], tell("Given direct addresses", direct));
  say(meter.children[1], tell("given the relay", relayed));
  bar.children[1].hidden = !relayed;
  bar.children[0].style.width = all ? `${(100 * direct / all).toFixed(1)}%` : "0";
  bar.children[1].style.width = all ? `${(100 * relayed / all).toFixed(1)}%` : "0";
}

/* The meter at `index` of a box, made when it is not there: the line of words and the bar of `parts`. */
function meterIn(box, index, parts) {
  while (box.children.length <= index) {
    const meter = make("div", "meter");
    const line = make("p");
    line.append(make("span"), make("span"));
    const bar = make("div", "bar full");
    bar.setAttribute("aria-hidden", "true");
    for (let part = 0; part < parts; part += 1) bar.append(make("span"));
    meter.append(line, bar);
    box.append(meter);
  }
  return box.children[index].children;
}

function showRelay(status, recent, history) {
  const relay = asObject(status.relay);
  const limits = asObject(relay.limits);
  const sessions = asObject(relay.sessions);
  const quota = asObject(relay.quota);
  const last = (column) => asNumber((history[column] || []).at(-1));
  const state = relay.enabled === false ? "off" : relay.draining === true ? "draining" : "on";
  say(byId("relay-aside"), `${state}, sessions of ${plural(sessions.peers, "peer", "peers")}`);
  fillRows(byId("relay-body"), MODES.map((mode) => ({ key: mode, cells: [
    { head: true, text: mode === "channel" ? "Channel" : "Stream" },
    { number: true, text: count(sessions[mode]) },
    { number: true, text: rate(last(`relayed_${mode}_bytes_per_s`)) },
    { number: true, text: size(asObject(asObject(relay.delivered)[mode]).bytes) },
    canaryCell(mode, asObject(asObject(relay.canary)[mode]), recent),
  ] })));
  const held = asNumber(sessions.channel) + asNumber(sessions.stream);
  const moving = last("relayed_channel_bytes_per_s") + last("relayed_stream_bytes_per_s");
  const left = isNumber(quota.ends_in_s) ? `, ${duration(quota.ends_in_s)} left` : "";
  showLimit(0, "Sessions", held, limits.max_sessions, count);
  showLimit(1, "Bandwidth", moving, limits.bandwidth_bytes_per_s, rate);
  showLimit(2, `Bytes of this period${left}`, asNumber(quota.used_bytes), limits.max_bytes, size);
}

function canaryCell(mode, canary, recent) {
  const failing = recent.grown(`relay_canaries|${mode}|failed`).by > 0;
  const passed = asNumber(canary.ok);
  const failed = asNumber(canary.failed);
  if (failing) return { badge: "bad", text: "Failing", note: `${count(failed)} failed` };
  if (!passed && !failed) return { badge: "wait", text: "Not run yet", note: "" };
  if (!passed) return { badge: "bad", text: "Failed", note: `${count(failed)} failed` };
  return { badge: "ok", text: "Passing", note: `${milliseconds(canary.latency_s)}${failed ? `, ${count(failed)} failed before` : ""}` };
}

function showLimit(index, name, used, limit, form) {
  const [line, bar] = meterIn(byId("relay-limits"), index, 1);
  const bounded = isNumber(limit) && limit > 0;
  const share = bounded ? used / limit : 0;
  say(line.children[0], `${name}: ${form(used)}`);
  say(line.children[1], bounded ? `of ${form(limit)}` : "no limit");
  bar.hidden = !bounded;
  mark(bar, share > 0.95 ? "bad" : share > 0.8 ? "warn" : "");
  bar.children[0].style.width = `${Math.min(100, share * 100).toFixed(1)}%`;
}

/* Counters of what was not done, by the start of their key. */
const REFUSALS = [
  ["drops|", "Datagram dropped"],
  ["handshake_failures|", "Handshake failed"],
  ["introductions_limited|", "Introduction limited"],
  ["coordinations|", "Introduction refused"],
  ["relay_refusals|", "Relay session refused"],
  ["relay_drops|", "Datagram not relayed"],
  ["ipc_dropped", "Message to worker dropped"],
  ["directory_dropped", "Peer not listed: directory full"],
  ["relay_misreports", "Worker's report not understood"],
];
const NO_REFUSALS = ["coordinations|accepted", "coordinations|introduced"];

function showRefusals(status, recent) {
  const totals = asObject(status.totals);
  const found = [];
  for (const [start, what] of REFUSALS) {
    for (const key of Object.keys(totals)) {
      const matches = start.endsWith("|") ? key.startsWith(start) : key === start;
      if (matches && totals[key] > 0 && !NO_REFUSALS.includes(key)) {
        found.push({ key, what, total: totals[key], reason: key.split("|").slice(1).join(" · ") });
      }
    }
  }
  const most = Math.max(1, ...found.map((each) => each.total));
  found.sort((a, b) => b.total - a.total || (a.key < b.key ? -1 : 1));
  byId("refusals-none").hidden = found.length > 0;
  byId("refusals-box").hidden = !found.length;
  fillRows(byId("refusals-body"), found.map((each) => ({ key: each.key, cells: [
    { head: true, text: each.what },
    { code: true, text: each.reason || NOTHING },
    { number: true, text: perSecond(recent.grown(each.key).rate) },
    { number: true, text: count(each.total) },
    { share: each.total / most, text: "" },
  ] })));
}

function showTalkers(status) {
  const known = Array.isArray(status.talkers);
  byId("talkers").hidden = !known;
  byId("talkers-link").hidden = !known;
  const talkers = asList(status.talkers).slice(0, 10).map(asObject);
  byId("talkers-none").hidden = talkers.length > 0;
  byId("talkers-box").hidden = !talkers.length;
  fillRows(byId("talkers-body"), talkers.map((each, index) => {
    const host = asText(each.host);
    return { key: String(index), cells: [
      { head: true, code: true, text: each.peer_id ? String(each.peer_id).slice(0, 16) : "no peer id",
        title: each.peer_id ? String(each.peer_id) : "a client that has not shown a raw public key" },
      { code: true, text: `${host.includes(":") ? `[${host}]` : host}:${asText(each.port)}` },
      { number: true, text: asText(each.slot) },
      { number: true, text: rate(each.sent_bytes_per_s) },
      { number: true, text: rate(each.received_bytes_per_s) },
      { number: true, text: size(asNumber(each.bytes_sent) + asNumber(each.bytes_received)) },
    ] };
  }));
}
