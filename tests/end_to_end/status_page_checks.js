/* Run inside the status page by test_status_page.py: what tools for accessibility look for, without the tools. */
() => {
  const problems = [];
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  const named = (element) => {
    const by = element.getAttribute("aria-labelledby");
    if (by) return by.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
    const label = element.getAttribute("aria-label");
    if (label) return label.trim();
    if (element.labels?.length) return [...element.labels].map((each) => each.textContent).join(" ").trim();
    return element.textContent.trim();
  };

  /* Controls and regions have names; ids that are referred to exist. */
  for (const each of document.querySelectorAll("a, button, input, nav, form, [role=region], [role=img], section, article")) {
    if (!named(each)) problems.push(`no name: ${each.outerHTML.slice(0, 80)}`);
  }
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const each of document.querySelectorAll(`[${name}]`)) {
      for (const id of each.getAttribute(name).split(" ")) {
        if (!document.getElementById(id)) problems.push(`${name} refers to nothing: ${id}`);
      }
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`id twice: ${id}`);

  /* Headings: one h1, no level skipped. */
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) problems.push(`heading skips a level: ${heading.textContent}`);
    if (!heading.textContent.trim()) problems.push("empty heading");
    level = own;
  }
  if (document.querySelectorAll("h1").length !== 1) problems.push("not exactly one h1");

  /* Tables: a caption, every header cell with its scope, every body row with its header. */
  for (const table of document.querySelectorAll("table")) {
    const caption = table.querySelector("caption")?.textContent.trim();
    if (!caption) problems.push("table without caption");
    for (const cell of table.querySelectorAll("th")) {
      if (!["row", "col"].includes(cell.scope)) problems.push(`no scope in ${caption}: ${cell.textContent}`);
    }
    for (const row of table.querySelectorAll("tbody tr")) {
      if (!row.querySelector("th")) problems.push(`row without header in ${caption}`);
    }
  }

  /* Pictures: charts have words, ornaments are hidden. */
  const charts = [...document.querySelectorAll("svg[role=img]")];
  for (const svg of document.querySelectorAll("svg")) {
    if (!charts.includes(svg) && svg.getAttribute("aria-hidden") !== "true") problems.push("picture without words");
  }
  for (const chart of charts) if (chart.getAttribute("aria-label").length < 30) problems.push(`${chart.getAttribute("aria-label")}`);
  if (document.querySelector("[tabindex]:not([tabindex='0']):not([tabindex='-1'])")) problems.push("positive tabindex");
  for (const each of document.querySelectorAll("[aria-hidden=true]")) {
    if (each.querySelector("a, button, input, [tabindex='0']")) problems.push("a control inside what is hidden");
  }

  /* The contrast of every word with what is behind it. */
  const parse = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return { red, green, blue, alpha };
  };
  const luminance = ({ red, green, blue }) => {
    const [r, g, b] = [red, green, blue].map((each) => {
      const value = each / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.alpha === 1) return colour;
      if (colour.alpha > 0) problems.push(`half transparent ground: ${at.className}`);
    }
    return parse("rgb(255, 255, 255)");
  };
  let [contrast, faintest, words] = [21, "", 0];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !shown(element) || element.closest("script, style, .unseen, .skip")) continue;
    words += 1;
    const style = getComputedStyle(element);
    if (style.opacity !== "1") problems.push(`half transparent text: ${text}`);
    const [one, other] = [luminance(parse(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < contrast) [contrast, faintest] = [ratio, `${text}: ${style.color}`];
  }

  return {
    problems,
    language: document.documentElement.lang,
    landmarks: Object.fromEntries([["header", "body > header"], ["nav", "nav"], ["main", "main"],
      ["footer", "body > footer"], ["search", "[role=search]"]].map(([name, selector]) =>
      [name, document.querySelectorAll(selector).length])),
    live: [...document.querySelectorAll("[aria-live], [role=status], [role=alert], [role=log]")].map((each) => each.id),
    charts: charts.length,
    words,
    contrast,
    faintest,
  };
}
