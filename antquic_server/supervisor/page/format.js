"use strict";
/* Numbers as people read them. A value that the node does not tell is a dash. */

const NOTHING = "–";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const asNumber = (value) => (isNumber(value) ? value : 0);
const asObject = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});
const asList = (value) => (Array.isArray(value) ? value : []);
const asText = (value) => (value === null || value === undefined || value === "" ? NOTHING : String(value));

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/* Three digits at the most: 0.12, 1.23, 12.3, 123. */
function digits(value) {
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return WHOLE.format(value);
  return value.toFixed(size >= 10 ? 1 : 2);
}

const count = (value) => (isNumber(value) ? WHOLE.format(value) : NOTHING);

function size(value) {
  if (!isNumber(value)) return NOTHING;
  let left = value;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (Math.abs(left) < 999.5) return `${unit === "B" ? WHOLE.format(left) : digits(left)} ${unit}`;
    left /= 1000;
  }
  return `${digits(left)} PB`;
}

const rate = (value) => (isNumber(value) ? `${size(value)}/s` : NOTHING);
const perSecond = (value) => (isNumber(value) ? `${digits(value)}/s` : NOTHING);

function milliseconds(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  if (seconds >= 1) return `${digits(seconds)} s`;
  const value = seconds * 1000;
  if (value === 0 || value >= 100) return `${WHOLE.format(value)} ms`;
  return `${value < 1 ? value.toFixed(2) : value.toFixed(1)} ms`;
}

const percent = (share) => (isNumber(share) ? `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %` : NOTHING);

function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const whole = Math.floor(seconds);
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).map(([amount, unit]) => `${amount} ${unit}`).join(" ");
}

const plural = (amount, one, many) => `${count(amount)} ${amount === 1 ? one : many}`;
const clockTime = (date) => date.toLocaleTimeString("en-GB");
const words = (name) => String(name).replaceAll("_", " ");

/* As TOML would write it, so that it can be copied into a file. */
function setting(value) {
  if (value === null || value === undefined) return '""';
  if (Array.isArray(value)) return `[${value.map(setting).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)} = ${setting(inner)}`).join(", ")}}`;
  }
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
