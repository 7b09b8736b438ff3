"use strict";
/* The configuration in force, which hardly ever changes, and the search in it. */

class SettingsPanel {
  constructor() {
    this.shown = "";
    this.rows = [];
    this.changed = 0;
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("search").addEventListener("input", () => this.filter(true));
    byId("only-changed").addEventListener("input", () => this.filter(true));
  }

  show(status) {
    const written = JSON.stringify([status.configuration, status.configuration_changes]);
    if (written === this.shown) return;
    this.shown = written;
    const defaults = asObject(status.configuration_changes);
    this.changed = Object.keys(defaults).length;
    this.rows = [];
    const cards = Object.entries(asObject(status.configuration)).map(([section, values]) => {
      const card = make("div", "card");
      const table = make("table");
      table.append(make("caption", "mono", `[${section}]`));
      const body = table.createTBody();
      for (const [key, value] of Object.entries(asObject(values))) body.append(this.row(section, key, value, defaults));
      card.append(table);
      return card;
    });
    byId("settings").replaceChildren(...cards);
    this.filter(false);
  }

  row(section, key, value, defaults) {
    const row = make("tr");
    const name = `${section}.${key}`;
    const differs = Object.hasOwn(defaults, name);
    const head = make("th", "mono", key);
    head.scope = "row";
    const cell = make("td");
    cell.append(make("code", "", setting(value)));
    if (differs) {
      row.className = "changed";
      cell.append(make("span", "was", `changed; default ${setting(defaults[name])}`));
    }
    row.append(head, cell);
    this.rows.push({ row, differs, text: `${name} ${setting(value)}`.toLowerCase() });
    return row;
  }

  filter(spoken) {
    const wanted = byId("search").value.trim().toLowerCase();
    const only = byId("only-changed").checked;
    let visible = 0;
    for (const { row, differs, text } of this.rows) {
      row.hidden = (only && !differs) || !text.includes(wanted);
      if (!row.hidden) visible += 1;
    }
    for (const card of byId("settings").children) {
      card.hidden = [...card.querySelectorAll("tr")].every((row) => row.hidden);
    }
    const found = `${visible} of ${this.rows.length} settings`;
    say(byId("filter-count"), `${found}, ${this.changed} differ from the defaults`);
    if (spoken) this.announceSoon(`${found} shown`);
  }

  /* Once the typing has stopped. */
  announceSoon(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => say(byId("announce"), text), 700);
  }
}
