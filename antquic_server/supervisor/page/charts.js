"use strict";
/* Line charts of the last minutes, drawn by hand as SVG that is stretched to its place. */

/* What a chart may span, in seconds: a node that has just started does not fill five minutes. */
const SPANS = [{ s: 60, words: "the last minute", marks: ["1 min ago", "30 s", "now"] },
  { s: 120, words: "the last two minutes", marks: ["2 min ago", "1 min", "now"] },
  { s: 300, words: "the last five minutes", marks: ["5 min ago", "2½ min", "now"] }];
const LONGEST_S = 300;
const WIDTH = 300;
const HEIGHT = 100;
const RETELL_MS = 10000; /* How often the words for a chart may change: a screen reader reads them in peace. */

/* least: the top of the scale is never below it, so that noise does not look like a mountain. */
const CHARTS = [
  { id: "throughput", title: "Throughput", form: rate, least: 1000, series: [
    { column: "received_bytes_per_s", name: "Received", tone: "1" },
    { column: "sent_bytes_per_s", name: "Sent", tone: "2", dashed: true }] },
  { id: "connections", title: "Connections", form: count, least: 4, series: [
    { column: "connections", name: "Open", tone: "1" }] },
  { id: "handshakes", title: "Handshakes", form: perSecond, least: 4, series: [
    { column: "handshakes_per_s", name: "Completed", tone: "1" },
    { column: "handshake_failures_per_s", name: "Failed", tone: "bad", dashed: true }] },
  { id: "relayed", title: "Relayed", form: rate, least: 1000, series: [
    { column: "relayed_channel_bytes_per_s", name: "By channel", tone: "1" },
    { column: "relayed_stream_bytes_per_s", name: "By stream", tone: "2", dashed: true }] },
  { id: "drops", title: "Datagrams dropped", form: perSecond, least: 4, series: [
    { column: "drops_per_s", name: "Dropped", tone: "bad" }] },
  { id: "lag", title: "Event loop lag", form: milliseconds, least: 0.01, series: [
    { column: "loop_lag_s", name: "Largest", tone: "1" }] },
];

/* The smallest round number that is not below: 1, 2, 4, 6, 8 or 10 times a power of ten. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 4, 6, 8, 10].find((each) => each * power >= value * (1 - 1e-9));
  return factor * power;
}

class Chart {
  constructor(plan, parent) {
    this.plan = plan;
    this.toldAt = 0;
    this.history = null;
    const card = make("article", "card chart");
    card.id = `chart-${plan.id}`;
    const head = make("div", "chart-head");
    const title = make("h3", "", plan.title);
    title.id = `chart-${plan.id}-title`;
    card.setAttribute("aria-labelledby", title.id);
    this.note = make("span", "chart-note");
    head.append(title, this.note);
    card.append(head, this.buildPlot(), this.buildAxis(), this.buildLegend());
    parent.append(card);
  }

  buildPlot() {
    const plot = make("div", "plot");
    this.svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${this.plan.title}: nothing yet` });
    for (const y of [0, 50]) this.svg.append(makeSvg("line", { x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.svg.append(makeSvg("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" }));
    this.paths = this.plan.series.map((series) => {
      const area = makeSvg("path", { class: `area tone-${series.tone}` });
      const line = makeSvg("path", { class: `line tone-${series.tone}${series.dashed ? " dashed" : ""}` });
      this.svg.append(area, line);
      return { area, line };
    });
    this.cursor = makeSvg("line", { y1: 0, y2: HEIGHT, class: "cursor", visibility: "hidden" });
    this.svg.append(this.cursor);
    this.marks = ["y-top", "y-mid", "y-zero"].map((name) => make("span", `y-label ${name}`));
    for (const label of this.marks) label.setAttribute("aria-hidden", "true");
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    this.tip.setAttribute("aria-hidden", "true");
    plot.append(this.svg, ...this.marks, this.tip);
    this.svg.addEventListener("pointermove", (event) => this.point(event.clientX));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    return plot;
  }

  buildAxis() {
    const axis = make("div", "x-labels");
    axis.setAttribute("aria-hidden", "true");
    this.axis = [0, 1, 2].map(() => make("span"));
    axis.append(...this.axis);
    return axis;
  }

  buildLegend() {
    const table = make("table", "legend");
    table.append(make("caption", "unseen", `${this.plan.title} in figures`));
    const row = table.createTHead().insertRow();
    for (const [index, name] of ["Series", "Now", "Mean", "Peak"].entries()) {
      const cell = make("th", index ? "number" : "", name);
      cell.scope = "col";
      if (!index) cell.className = "legend-series";
      row.append(cell);
    }
    this.figures = table.createTBody();
    for (const series of this.plan.series) {
      const line = this.figures.insertRow();
      const cell = make("th");
      cell.scope = "row";
      const key = makeSvg("svg", { class: "key", viewBox: "0 0 18 8", "aria-hidden": "true" });
      key.append(makeSvg("line", { x1: 0, x2: 18, y1: 4, y2: 4,
        class: `tone-${series.tone}${series.dashed ? " dashed" : ""}` }));
      cell.append(key, make("span", "", series.name));
      line.append(cell, make("td", "number"), make("td", "number"), make("td", "number"));
    }
    return table;
  }

  draw(history, span, interval, note) {
    this.history = history;
    this.span = span.s;
    this.axis.forEach((label, index) => say(label, span.marks[index]));
    say(this.note, note || "");
    const { form, least, series } = this.plan;
    const columns = series.map((each) => history[each.column]);
    const peaks = columns.map((values) => Math.max(0, ...values));
    this.top = roundUp(Math.max(least, ...peaks));
    this.marks.forEach((label, index) => say(label, form(this.top * (1 - index / 2))));
    const times = history.t_s;
    this.end = times.length ? times[times.length - 1] : 0;
    columns.forEach((values, index) => this.trace(this.paths[index], times, values, interval));
    const told = columns.map((values, index) => {
      const mean = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0;
      const shown = [values.length ? values[values.length - 1] : null, mean, peaks[index]].map(form);
      [...this.figures.rows[index].cells].slice(1).forEach((cell, place) => say(cell, shown[place]));
      return `${series[index].name.toLowerCase()} ${shown[0]} now, ${shown[1]} on average, ${shown[2]} at the most`;
    });
    if (Date.now() - this.toldAt >= RETELL_MS && times.length) {
      this.toldAt = Date.now();
      this.svg.setAttribute("aria-label", `${this.plan.title} in ${span.words}: ${told.join("; ")}`);
    }
  }

  trace({ area, line }, times, values, interval) {
    let drawn = "";
    let filled = "";
    let start = null;
    times.forEach((time, index) => {
      const x = this.across(time);
      const y = (HEIGHT - (values[index] / this.top) * HEIGHT).toFixed(2);
      /* Where the node was asleep, or was not asked, there is a gap and no invented line. */
      if (start === null || time - times[index - 1] > 2.5 * interval) {
        if (start !== null) filled += `L${this.across(times[index - 1])} ${HEIGHT}L${start} ${HEIGHT}Z`;
        drawn += `M${x} ${y}`;
        filled += `M${x} ${y}`;
        start = x;
      } else {
        drawn += `L${x} ${y}`;
        filled += `L${x} ${y}`;
      }
    });
    if (start !== null) filled += `L${WIDTH} ${HEIGHT}L${start} ${HEIGHT}Z`;
    line.setAttribute("d", drawn);
    area.setAttribute("d", filled);
  }

  across(time) {
    return Math.max(0, ((time - this.end) / this.span + 1) * WIDTH).toFixed(2);
  }

  /* Shows the figures under the pointer, or none. */
  point(clientX) {
    const times = this.history ? this.history.t_s : [];
    const box = this.svg.getBoundingClientRect();
    const hidden = clientX === null || !times.length || !box.width;
    this.tip.hidden = hidden;
    this.cursor.setAttribute("visibility", hidden ? "hidden" : "visible");
    if (hidden) return;
    const wanted = this.end - this.span + ((clientX - box.left) / box.width) * this.span;
    const nearest = times.reduce((best, time, index) =>
      (Math.abs(time - wanted) < Math.abs(times[best] - wanted) ? index : best), 0);
    const x = this.across(times[nearest]);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const ago = Math.round(this.end - times[nearest]);
    const lines = this.plan.series.map((each) => `${each.name}  ${this.plan.form(this.history[each.column][nearest])}`);
    say(this.tip, [ago ? `${duration(ago)} ago` : "now", ...lines].join("\n"));
    const share = x / WIDTH;
    this.tip.style.left = share < 0.5 ? `calc(4.25rem + (100% - 4.25rem) * ${share.toFixed(3)} + 0.5rem)` : "auto";
    this.tip.style.right = share < 0.5 ? "auto" : `calc((100% - 4.25rem) * ${(1 - share).toFixed(3)} + 0.5rem)`;
  }
}

function spanFor(times) {
  const held = times.length ? times[times.length - 1] - times[0] : 0;
  return SPANS.find((span) => held <= span.s) || SPANS[SPANS.length - 1];
}
